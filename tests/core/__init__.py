"""What is decided, as values."""
