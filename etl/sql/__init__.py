"""Hold the SQL text that reports, roll-ups and exports share."""
