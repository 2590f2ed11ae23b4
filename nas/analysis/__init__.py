"""Questions to a finished or running search: summary, explanation, comparison, importance."""
