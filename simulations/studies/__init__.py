"""Studies: several experiments that answer one question."""
