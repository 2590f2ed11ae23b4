"""Search problems for samplers: tables that others measured, and synthetic functions."""
