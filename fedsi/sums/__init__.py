"""Exact sums of updates: all the arithmetic that the server and the clients share."""
