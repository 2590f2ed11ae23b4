"""Seconds, joules and quality that compression saves or costs."""
