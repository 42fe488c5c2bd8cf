// Placeholder until the first slice of Program lands.
