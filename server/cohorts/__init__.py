"""Who takes part in a round: sampling, availability, reporting in time, canaries."""
