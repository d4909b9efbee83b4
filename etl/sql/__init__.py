"""Hold what all SQL text shares."""
