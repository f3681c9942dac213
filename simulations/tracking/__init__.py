"""The events of a run, told to other programs: curves, a log of JSON lines, live metrics."""
