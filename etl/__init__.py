"""Bring Twilio Verify attempts, final, into SQL for the fewest requests."""

__version__ = "0.1.0"
