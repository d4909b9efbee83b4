"""Turn a payload into an attempt, or a reason why not."""
