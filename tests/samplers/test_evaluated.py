"""What a proposer remembers against looking at everything again."""

import numpy as np
import pytest

from nas.pareto.dominance import non_dominated_mask
from nas.samplers.evaluated import Archive, Evaluated, KeySet, relevant
from nas.samplers.history import GrowingArray
from nas.samplers.parameters import keys


def evaluated(rows, losses, n_constraints=0):
    n = len(rows)
    return Evaluated(rows, losses, np.zeros_like(losses), np.zeros((n, n_constraints)))


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_what_is_kept_step_by_step_is_what_all_rows_at_once_would_give(objectives):
    rng = np.random.default_rng(objectives)
    rows = rng.integers(0, 9, (900, 5)).astype(float)
    losses = rng.random((900, objectives))
    memory, n = Archive(100), 0
    while n < 900:
        n = min(900, n + int(rng.integers(1, 80)))
        used = memory.learn(evaluated(rows[:n], losses[:n]), None, lambda x: x)
        assert memory.keys == set(keys(rows[:n]))
        expected = relevant(losses[:n], 100)
        assert len(used) == min(n, 100)
        if objectives == 1:
            assert np.array_equal(np.sort(used.losses[:, 0]), np.sort(losses[:n, 0])[:100])
            continue
        # Whole layers are the same; of the last, any may be kept.
        layer = np.zeros(n, dtype=int)
        left = np.arange(n)
        while len(left):
            mask = non_dominated_mask(losses[left], (False,) * objectives)
            layer[left[~mask]] += 1
            left = left[~mask]
        at = {loss.tobytes(): layer[i] for i, loss in enumerate(losses[:n])}
        assert sorted(at[x.tobytes()] for x in used.losses) == sorted(layer[expected])


def test_a_new_constraint_or_study_is_learnt_from_the_start():
    rows, losses = np.arange(20.0)[:, None], np.random.default_rng(0).random((20, 2))
    memory, formed = Archive(8), []

    def form(rows_NP):
        formed.append(len(rows_NP))
        return rows_NP

    memory.learn(evaluated(rows, losses), rows[:3] + 0.5, form)
    assert formed == [20, 3] and len(memory.keys) == 23
    used = memory.learn(evaluated(rows, losses, n_constraints=1), rows[:3] + 0.5, form)
    assert formed == [20, 3, 20, 3] and used.constraints.shape == (8, 1)
    memory.learn(evaluated(rows[:5], losses[:5], n_constraints=1), None, form)
    assert len(memory.keys) == 5


def test_known_keys_are_added_to_without_changing_what_they_came_from():
    base = {b"a"}
    known = KeySet(base)
    copy = known.copy()
    known.add(b"b")
    assert b"a" in known and b"b" in known and b"b" not in copy and base == {b"a"}


def test_rows_grow():
    rows, growing = np.random.default_rng(0).random((300, 4)), GrowingArray()
    assert growing.array(4).shape == (0, 4)
    for start in range(0, 300, 7):
        growing.extend(rows[start : start + 7])
        assert np.array_equal(growing.array(4), rows[: start + 7])
