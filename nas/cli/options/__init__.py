"""Options that verbs share, and what they parse."""
