"""Noise mechanisms: one module each, named by one line of ``table``."""
