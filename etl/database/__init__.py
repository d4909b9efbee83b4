"""Open databases, run transactions, and hide how the kinds differ."""
