"""Stop trainings early that cannot pay: successive halving and forecasts."""
