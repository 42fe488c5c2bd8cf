// Placeholder until the first slice of Transport lands.
