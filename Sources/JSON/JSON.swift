// Placeholder until the first slice of JSON lands.
