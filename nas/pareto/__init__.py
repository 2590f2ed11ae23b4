"""The front: dominance, hypervolume, queries, plots."""
