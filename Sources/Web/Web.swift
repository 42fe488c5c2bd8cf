// Placeholder until the first slice of Web lands.
