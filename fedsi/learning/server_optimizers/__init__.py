"""Server optimizers: how the average update moves the global parameters."""
