"""Engines: ways to run the two Flower apps."""
