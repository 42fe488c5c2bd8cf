// Placeholder until the first slice of WebTests lands.
