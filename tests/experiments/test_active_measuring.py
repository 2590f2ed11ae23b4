"""The benchmark of active measuring: what it says of rows that random choice needs."""

import numpy as np
import pytest

from experiments.benchmarks.prediction import active_measuring
from experiments.benchmarks.prediction.active_measuring import made_up, main, rows_needed, scores


def test_rows_needed_by_hand():
    tried, losses = [10, 20, 40], [0.4, 0.2, 0.1]
    assert rows_needed(tried, losses, 0.5) == 10
    assert rows_needed(tried, losses, 0.2) == pytest.approx(20)
    # Half-way between two losses is half-way between their rows in logarithms.
    assert rows_needed(tried, losses, 0.15) == pytest.approx(np.sqrt(800))
    assert rows_needed(tried, losses, 0.05) is None


def test_both_ways_pay_for_their_rows_and_are_judged_on_the_same_others(monkeypatch):
    monkeypatch.setattr(active_measuring, "SIZES", (10, 12))
    monkeypatch.setattr(active_measuring, "RANDOM_SIZES", (10, 12))
    monkeypatch.setattr(active_measuring, "_MADE_UP_ROWS", 120)
    data = made_up()
    assert np.std(np.log(data.label / data.truth)) == pytest.approx(0.02, rel=0.3)
    fitted = []

    class Noting(type(data)):
        def fit(self, rows, seed):
            fitted.append(set(rows.tolist()))
            return super().fit(rows, seed)

    noting = Noting(**{name: getattr(data, name) for name in data.__dataclass_fields__})
    test = set(np.random.default_rng(3).permutation(len(data.truth))[: int(0.3 * 120)].tolist())
    for active, sizes in ((True, [10, 12]), (False, [10, 12])):
        fitted.clear()
        found = scores(noting, 3, active=active)
        assert list(found) == [10, 12] and [len(rows) for rows in fitted] == sizes
        assert fitted[0] <= fitted[-1]
        assert not any(rows & test for rows in fitted)


def test_bad_input_is_one_line(capsys):
    assert main(["--seeds", "0"]) == 2
    assert capsys.readouterr().err == "active_measuring: seeds must be >= 1, got 0\n"
