"""The client side: a Flower ClientApp that trains the simulated clients of a node."""
