"""Decide without I/O: windows to sweep, Summaries to ask, the next state of a row."""
