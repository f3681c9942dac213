"""The server side: cohorts, the round loop, aggregation, server optimizers, the run folder."""
