"""Charts of a run, described once and drawn by matplotlib and by the HTML page."""
