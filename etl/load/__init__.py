"""Write attempts and finish their rows in the same transaction."""
