"""Output layers that give a few likely words without computing all logits."""
