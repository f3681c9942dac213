"""Client optimizers: how a step's gradient moves a client's parameters."""
