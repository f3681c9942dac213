"""A run's files on disk, and how a resumed run reads them."""
