"""Move rows of the leased tables between their states."""
