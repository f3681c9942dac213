"""Learning tasks: targets, losses and metrics."""
