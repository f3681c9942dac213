"""Programs that measure fedsi; what they print is worth as much as the machine was quiet."""
