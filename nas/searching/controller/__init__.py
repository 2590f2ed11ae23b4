"""What to run next and what to do with results: the session and what it proposes from."""
