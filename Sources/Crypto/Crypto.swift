// Placeholder until the first slice of Crypto lands.
