"""Local SGD of simulated clients, exact sums of their updates, and metrics."""
