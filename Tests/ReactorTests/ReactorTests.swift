// Placeholder until the first slice of ReactorTests lands.
