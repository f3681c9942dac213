"""Compiled loops, and the forward and backward passes that are written with them."""
