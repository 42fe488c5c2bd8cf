// Placeholder until the first slice of OperatorClientTests lands.
