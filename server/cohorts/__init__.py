"""Selection of each round's clients: sampling, availability, reporting in time, canaries."""
