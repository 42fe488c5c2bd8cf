// Placeholder until the first slice of CryptoTests lands.
