"""A run as one HTML page, or the same page served while it runs."""
