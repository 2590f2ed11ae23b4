"""The Pareto front: dominance, hypervolume, queries, probabilities."""
