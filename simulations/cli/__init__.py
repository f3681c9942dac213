"""The ``fedsi`` command."""
