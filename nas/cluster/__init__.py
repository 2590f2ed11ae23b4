"""Ray: connect, run trials on Ray Tune, measure as tasks on the nodes that have a device."""
