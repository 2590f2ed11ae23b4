"""What a model costs: joules measured by meters, or predicted from measured records."""
