import pytest

from experiments.benchmarks.runtime import forked_labels, quickstart_time


def test_fronts_of_a_seed_share_a_reference_point():
    def printed(*front, name="quality"):
        members = [{name: quality, "energy_j": energy_j} for quality, energy_j in front]
        return {"front": {"members": members}, "summary": {"complete": 3}}

    better = quickstart_time.read_search(printed((0.9, 1e-6), (0.95, 1e-5)), 1.0, 2.0)
    worse = quickstart_time.read_search(printed((0.9, 1e-5), name="accuracy"), 1.0, 2.0)
    # 1.1 decades x 0.01, and 0.1 decades x 0.05 above it.
    assert quickstart_time.volumes((better, worse)) == pytest.approx([0.016, 0.001])


def test_candidates_differ_and_run_on_a_cpu():
    drawn = forked_labels.candidates(12, seed=0)
    assert len(set(drawn)) == 12 and drawn == forked_labels.candidates(12, seed=0)
    precisions = {block.compression.precision for a in drawn for block in a.blocks}
    assert precisions <= {"fp32", "bf16", "int8"}


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (forked_labels, ["--candidates", "3"]),
        (quickstart_time, ["--beside", "/nowhere"]),
    ],
)
def test_benchmarks_refuse_what_they_cannot_do(capsys, module, arguments):
    assert module.main(arguments) == 2
    assert "must be" in capsys.readouterr().err
