// Placeholder until the first slice of Reactor lands.
