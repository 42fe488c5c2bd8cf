// Placeholder until the first slice of MapTests lands.
