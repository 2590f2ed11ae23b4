"""The run directory: its files, the study of its trials, and the lock of its one driver."""
