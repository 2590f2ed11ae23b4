"""The search: gate, study, Ray driver, run folders."""
