"""Server optimizers, which apply the average update to the global parameters."""
