// Placeholder until the first slice of TransportTests lands.
