"""What is learned: which positions of a row are targets, and how predictions are scored."""
