"""Code for one kind of processor."""
