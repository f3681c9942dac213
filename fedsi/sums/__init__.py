"""Exact sums of updates: the arithmetic shared by server and clients."""
