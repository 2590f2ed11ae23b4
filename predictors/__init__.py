"""Costs of models: joules measured by meters, or predicted from measured records."""
