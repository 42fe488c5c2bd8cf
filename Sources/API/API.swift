// Placeholder until the first slice of API lands.
