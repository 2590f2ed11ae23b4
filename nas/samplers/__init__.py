"""Sampling a search's next candidates by expected hypervolume improvement.

``EhviSampler`` is an Optuna sampler for any multi-objective study; the modules below it know
nothing of Optuna.
"""
