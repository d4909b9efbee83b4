"""List attempts a page at a time: sweep, discover, Verifications, reconcile."""
