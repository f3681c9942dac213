"""How noise is made: one module for each mechanism, and one line of ``table`` that names it."""
