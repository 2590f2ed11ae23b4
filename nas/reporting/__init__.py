"""The report of a run: one HTML page that needs nothing else, or the same served while it runs."""
