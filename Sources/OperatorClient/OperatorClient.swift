// Placeholder until the first slice of OperatorClient lands.
