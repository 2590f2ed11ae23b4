"""What verbs print: tables, reports, progress."""
