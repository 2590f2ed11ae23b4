"""The measuring protocol: planning, running and recording energy measurements."""
