"""The edge side: a Flower ClientApp that trains the simulated clients a node hosts."""
