"""Labels of a device: measured joules that later searches start with, and how they repeat."""
