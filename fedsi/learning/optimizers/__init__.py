"""Client optimizers, which apply a step's gradient to a client's parameters."""
