"""Hold what every stage of a run works with."""
