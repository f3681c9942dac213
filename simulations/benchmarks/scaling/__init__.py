"""How fedsi scales: with workers, with the size of a cohort, and how soon it starts."""
