"""Compiled loops and the forward and backward passes built on them."""
