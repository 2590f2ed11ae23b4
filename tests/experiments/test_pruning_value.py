"""The benchmark of pruning: both searches are charged alike, and compared at equal seconds."""

import math
from dataclasses import replace

import pytest

from experiments.benchmarks.sampling.pruning_value import Costs, Curve, Meter, means, pair, search
from experiments.benchmarks.training.scratch_search import Training, space
from experiments.recipes import quickstart
from nas.records.config import GateConfig
from nas.searching.gating.pruning import PruningCounts
from nas.tasks.registry import get_task
from predictors.meters.base import EnergyReading


def curve(volumes, cpu_s, *, considered=0, dominated=0):
    counts = PruningCounts(considered, 0, dominated)
    return Curve(tuple(volumes), tuple(cpu_s), len(volumes), counts)


def test_a_pair_is_compared_when_the_shorter_search_ended():
    on = curve([0.1, 0.3, 0.6], [5, 10, 15], considered=10, dominated=4)
    off = curve([0.2, 0.4, 0.5, 0.9], [6, 12, 18, 24])
    row = pair("ehvi", 0, on, off)
    assert (row["seconds"], row["on"], row["off"], row["pruned"]) == (15, 0.6, 0.4, 0.4)


def test_the_mean_ratio_is_of_logarithms():
    rows = [
        pair("ehvi", seed, curve([v], [1]), curve([0.1], [1])) for seed, v in enumerate((0.2, 0.8))
    ]
    (row,) = means(rows)
    assert row["ratio"] == pytest.approx(4) and row["low"] < 1 < row["high"]


def test_labels_of_a_session_share_its_deviation_and_state_it():
    task = quickstart("cpu").task
    workload = get_task(task).workload(512)
    config = quickstart("cpu")
    (architecture,) = config.baselines[:1]
    meter = Meter(workload, 0.1, seed=3)
    readings: list[EnergyReading] = [meter.read(architecture) for _ in range(40)]
    logs = [math.log(r.energy_j / meter.true_j(architecture)) for r in readings]
    mean = sum(logs) / len(logs)
    spread = math.sqrt(sum((x - mean) ** 2 for x in logs) / len(logs))
    assert 0.015 < spread < 0.035 and meter.n == 40
    assert readings[0].half_width > 0.15


class Known:
    """Trainings whose quality grows with the width, without any training."""

    def of(self, architecture, seed):
        quality = 0.6 + 0.3 * architecture.d_model / 96
        return Training(f"{architecture.hash}-{seed}", quality, 0.005, quality, 4.0)


@pytest.mark.thorough
@pytest.mark.parametrize("sampler", ["ehvi", "random"])
def test_pruning_trains_no_candidate_that_it_prunes_and_both_are_charged(tmp_path, sampler):
    config = replace(
        quickstart("cpu"),
        space=space(),
        trials=16,
        baselines=(),
        sampler=sampler,
        gate=GateConfig(startup_trials=8, confidence=0.7),
    )
    found = {}
    for prunes in (True, False):
        folder = tmp_path / str(prunes)
        folder.mkdir()
        found[prunes] = search(config, Known(), folder, Costs(5.0, 0.02, 12), prunes=prunes)
    assert found[False].counts.pruned == 0 < found[True].counts.pruned
    assert found[False].labels == 12 + 16 >= found[True].labels
    for one in found.values():
        assert one.cpu_s[0] > 4.0 + 13 * 5.0 and list(one.cpu_s) == sorted(one.cpu_s)
        assert len(one.volumes) == 16
