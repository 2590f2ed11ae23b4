"""Ray: connect, run trials on Ray Tune, measure as tasks on the nodes that have a device."""

# First: it sets what Ray reads when it is imported.
from nas.cluster import ray_internals as ray_internals
