"""A search opens nothing to the network, and tells nobody of itself."""

import contextlib
import os
from pathlib import Path

import pytest

from nas.cluster import connect as ray_cluster

LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
LISTENS = "0A"


def listening(pids):
    """Addresses, as /proc writes them, of sockets that these processes listen at."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inodes.add(os.readlink(link))
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENS and f"socket:[{words[9]}]" in inodes:
                address, _, port = words[1].partition(":")
                found[int(port, 16)] = address
    return found


def descendants(pid):
    """Processes that ``pid`` started, and those they started."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            parents.setdefault(int(stat[1]), []).append(int(folder.name))
    todo, found = [pid], set()
    while todo:
        children = parents.get(todo.pop(), [])
        found.update(children)
        todo += children
    return found


@pytest.mark.e2e
def test_a_search_of_its_own_listens_at_loopback_alone_and_has_no_dashboard():
    import ray

    with ray_cluster.cluster(None, 1, "cpu"):
        pids = descendants(os.getpid())
        commands = [Path(f"/proc/{pid}/cmdline") for pid in pids]
        said = b" ".join(path.read_bytes() for path in commands if path.exists())
        assert b"raylet" in said
        found = listening(pids | {os.getpid()})
        assert found and set(found.values()) <= LOOPBACK, found
        assert ray._private.worker._global_node.webui_url in ("", None)
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        from ray._common.usage.usage_lib import usage_stats_enabled

        assert not usage_stats_enabled()
        (job,) = ray._private.state.jobs()
        assert job["Entrypoint"] == "nas"
