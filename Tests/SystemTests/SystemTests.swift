// Placeholder until the first slice of SystemTests lands.
