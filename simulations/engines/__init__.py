"""Ways to run the same two Flower apps."""
