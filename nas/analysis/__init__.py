"""Questions to a finished or running search: account, explanation, comparison, importance."""
