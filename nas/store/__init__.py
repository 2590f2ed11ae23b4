"""The run directory: study storage, its journal, and the lock of the one driver that writes."""
