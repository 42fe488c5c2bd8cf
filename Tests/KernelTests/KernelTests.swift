// Placeholder until the first slice of KernelTests lands.
