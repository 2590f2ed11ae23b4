"""The gate's benchmark: noise as sessions have it, and errors of true values by hand."""

import numpy as np
import pytest
from search_fakes import SPACE, WORKLOAD, finished, make_trial, truth

from experiments.benchmarks.sampling import gate_quality
from experiments.benchmarks.sampling.gate_problems import Labels, Members
from experiments.benchmarks.tables.gpt_readings import read_gpt_readings
from search_spaces.space.sampling import sample

HEAD = "gpu,scale,session,d_model,depth,heads,mlp_ratios,bias,energy_j_median"
ROW = "P100,m,0_2500,256,2,4-8,2-3,1,12.5"


class Fake:
    """Members of a small space; perplexity and joules are formulas."""

    name, workload = "fake", WORKLOAD

    def draw(self, n, rng):
        """Return ``n`` members."""
        architectures = tuple(sample(SPACE, rng) for _ in range(n))
        values = np.array([truth(architecture) for architecture in architectures])
        return Members(architectures, 1000 * (1.001 - values[:, 0]), values[:, 1])


def labelled(noise, *, states_sessions=True, n=400, size=20):
    members = Fake().draw(1, np.random.default_rng(0))
    labels = Labels(
        WORKLOAD,
        noise,
        np.random.default_rng(1),
        labels_a_session=size,
        states_sessions=states_sessions,
    )
    trials = [labels.trial(members, 0) for _ in range(n)]
    errors = np.log([t.reading.energy_j / members.energy_j[0] for t in trials])
    return trials, errors.reshape(-1, size)


def test_labels_of_a_session_share_its_effect():
    _, errors = labelled(0.15)
    assert errors.mean(axis=1).std() == pytest.approx(0.15, rel=0.4)
    assert errors.std(axis=1).mean() == pytest.approx(0.15 / 4, rel=0.1)


@pytest.mark.parametrize(("states_sessions", "least", "most"), [(True, 0.85, 1), (False, 0, 0.5)])
def test_a_reading_states_the_noise_between_sessions_or_not(states_sessions, least, most):
    trials, errors = labelled(0.15, states_sessions=states_sessions)
    true_j = trials[0].reading.energy_j / np.exp(errors[0, 0])
    holds = np.mean([t.reading.low_j <= true_j <= t.reading.high_j for t in trials])
    assert least <= holds <= most


def test_without_noise_labels_are_the_true_values():
    trials, errors = labelled(0.0, n=20)
    assert errors == pytest.approx(np.zeros((1, 20)), abs=1e-12)
    assert len({t.quality for t in trials}) == 1 and trials[0].quality_se == 0


def test_errors_of_true_values_by_hand():
    # 0, 1 are evaluated; 2 is dominated by 1; 3 is on the front; 4 only 3 dominates, and 5 both.
    losses = np.array([[0, 4], [2, 2], [3, 3], [1, 2.5], [1.5, 2.7], [4, 5.0]])
    architecture = sample(SPACE, np.random.default_rng(0))
    trials = [finished(make_trial(n, "running", architecture)) for n in range(2)]
    found = gate_quality._outcome(losses, [0, 1], [2, 3, 4, 5], trials)
    assert (found.dropped, found.false_drops) == (4, 2)
    assert (found.front, found.lost) == (3, 1)
    # The reference point is (4.4, 5.3), a tenth of the extents beyond the worst losses.
    evaluated, proposed = 4.4 * 1.3 + 2.4 * 2, 4.4 * 1.3 + 3.4 * 1.5 + 2.4 * 0.5
    assert found.volume_lost == pytest.approx(1 - evaluated / proposed)
    everything = gate_quality._outcome(losses, range(6), [], trials)
    assert (everything.lost, everything.volume_lost) == (0, 0)


@pytest.mark.parametrize("search", ["first", "second"])
def test_a_run_counts_what_was_judged(search, monkeypatch):
    monkeypatch.setattr(gate_quality, "_POOL", 50)
    setting = gate_quality.Setting(Fake(), search, 0.03, 0.9, 12, 10)
    found = gate_quality.run(setting, 0)
    assert 0 <= found.false_drops <= found.dropped <= 10 and 0 <= found.lost <= found.front
    shown = gate_quality.table([(setting, found)]).markdown()
    assert "| fake | 3% | yes | 0.90 |" in shown


def test_readings_of_one_gpu_and_scale(tmp_path):
    path = tmp_path / "readings.csv"
    path.write_text("\n".join([HEAD, ROW, ROW.replace("P100", "V100")]))
    readings = read_gpt_readings(path, "P100", "m")
    assert readings.models == ((256, 2, [2, 3], [4, 8], True),)
    assert readings.energy_j.tolist() == [12.5]
    with pytest.raises(ValueError, match="gpu must be one of P100:m, V100:m, got A100:l"):
        read_gpt_readings(path, "A100", "l")
    path.write_text(HEAD.replace("gpu", "card") + "\n" + ROW)
    with pytest.raises(ValueError, match="must have the columns of readings, lacks 'gpu'"):
        read_gpt_readings(path, "P100", "m")
