// Placeholder until the first slice of JSONTests lands.
