"""Optuna samplers that propose by expected hypervolume improvement.

``EhviSampler`` is an Optuna sampler for any multi-objective study; the modules below it know
nothing of Optuna.
"""
