// Placeholder until the first slice of AgentTests lands.
