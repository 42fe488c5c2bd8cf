// Placeholder until the first slice of ProgramTests lands.
