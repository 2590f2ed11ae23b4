"""The benchmark of kept arrays tells processes that share memory from those that do not."""

from pathlib import Path

import pytest

from experiments.benchmarks.runtime import kept_arrays
from experiments.results.record import kept


@pytest.mark.thorough
@pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").is_file(), reason="memory is told by Linux alone"
)
def test_mapped_arrays_are_shared_and_read_files_are_not(tmp_path, capsys):
    arguments = ["--workers", "2", "--texts", "20000", "--pictures", "600"]
    assert kept_arrays.main([*arguments, "--keep", str(tmp_path)]) == 0
    (result,) = kept(tmp_path)
    rows = {(row["task"], row["way"]): row for row in result.table("processes").rows}
    assert len(rows) == 4 and "node MB" in capsys.readouterr().out
    for task in ("texts", "pictures"):
        mapped, files = rows[task, "mapped"], rows[task, "files"]
        assert mapped["workers"] == files["workers"] == 2
        assert mapped["cpu_s"] < files["cpu_s"]
        assert mapped["node_mb"] < files["node_mb"]
    # 14,000 texts for training, of 40 tokens of 8 bytes: 4.5 MB, which two that share it have half
    # of, and which is nobody's own.
    mapped, files = rows["texts", "mapped"], rows["texts", "files"]
    assert mapped["private_mb"] < 1.5 and 1.5 < mapped["proportional_mb"] < 4
    assert files["private_mb"] > 4.2
