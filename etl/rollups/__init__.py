"""Keep sums by quarter hour, so that reports need not read every row."""
