// Placeholder until the first slice of System lands.
