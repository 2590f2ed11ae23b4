"""What verbs print: tables, accounts, progress."""
