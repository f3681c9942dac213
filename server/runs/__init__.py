"""What a run leaves on disk, and what a resumed one reads of it."""
