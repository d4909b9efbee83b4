"""Bring the schema and its views up to date."""
