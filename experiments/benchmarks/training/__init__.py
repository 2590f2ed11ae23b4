"""Ways to train candidates, by quality at equal cost: block styles, teachers, supernets."""
