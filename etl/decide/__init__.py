"""Decide purely: what to sweep, what to ask, what becomes of a row. No I/O."""
