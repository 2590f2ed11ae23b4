"""A driver's cost against the number of workers and trials, by simulation."""
