"""Fetch SIDs one by one, one request each."""
