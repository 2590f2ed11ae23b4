"""A run as pictures for people and papers. matplotlib is imported when one is drawn."""
