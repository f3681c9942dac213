"""Training code written for one kind of processor."""
