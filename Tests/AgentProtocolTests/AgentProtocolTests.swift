// Placeholder until the first slice of AgentProtocolTests lands.
