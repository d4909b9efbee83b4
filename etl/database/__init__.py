"""Open databases, run transactions, and know what differs between the kinds."""
