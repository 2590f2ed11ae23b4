"""Optuna samplers that propose by expected hypervolume improvement.

``EhviSampler`` is an Optuna sampler for any multi-objective study. Only ``ehvi``, ``columns`` and
``history`` import Optuna.
"""
