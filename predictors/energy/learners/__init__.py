"""Learners that the energy predictor mixes, and the weights of the mixture."""
