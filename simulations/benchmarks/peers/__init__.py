"""Comparison of fedsi with other simulators: same weights, clients, batches and steps."""
