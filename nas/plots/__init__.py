"""A run as pictures. matplotlib is imported when one is drawn."""
