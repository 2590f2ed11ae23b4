"""The rule by which trials go on or stop: rungs, ranks, and whom it protects."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.pareto.dominance import non_dominated_mask
from nas.records.rungs import HalvingConfig, RungPoint
from nas.searching.early_stopping.halving import Halving, Standing, ranks

CONFIG = HalvingConfig(eta=3, min_epochs=4, startup_trials=0)


def standing(quality, energy_j, standard_error=0.01):
    return Standing(quality, standard_error, energy_j)


def test_rungs_end_before_the_last_epoch():
    assert CONFIG.rungs(40) == (4, 12, 36)
    assert CONFIG.rungs(36) == (4, 12)
    assert CONFIG.rungs(4) == ()
    assert HalvingConfig.for_epochs(60).rungs(60) == (5, 15, 45)
    assert HalvingConfig.for_epochs(2).rungs(2) == (1,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eta": 1}, "halving eta must be an integer >= 2, got 1"),
        ({"eta": 2.5}, "halving eta"),
        ({"min_epochs": 0}, "halving min_epochs"),
        ({"startup_trials": -1}, "halving startup_trials"),
        ({"startup_trials": True}, "halving startup_trials"),
    ],
)
def test_wrong_fields_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        HalvingConfig(**change)


def test_fronts_come_first_and_within_one_the_greatest_contribution():
    # A front of four, of which the third adds nearly nothing beside its neighbours.
    front = [
        standing(0.5, 1e-6),
        standing(0.7, 2e-6),
        standing(0.705, 3.9e-6),
        standing(0.9, 4e-6),
    ]
    behind = standing(0.6, 5e-6)
    assert ranks([behind, *front])[0] == 4
    assert ranks([behind, *front])[3] == 3


points = st.lists(st.tuples(st.floats(0, 1), st.floats(1e-9, 1e-3)), min_size=1, max_size=25).map(
    lambda pairs: [standing(a, e) for a, e in pairs]
)


@given(points)
def test_ranks_are_an_order_in_which_nobody_follows_whom_it_dominates(found):
    order = ranks(found)
    assert sorted(order) == list(range(len(found)))
    for a, b in itertools.permutations(range(len(found)), 2):
        x, y = found[a], found[b]
        if x.quality > y.quality and x.energy_j < y.energy_j:
            assert order[a] < order[b]
    mask = non_dominated_mask([(s.quality, s.energy_j) for s in found], (True, False))
    on_front, others = np.array(order)[mask], np.array(order)[~mask]
    assert not len(others) or on_front.max() < others.min()


def run(config, *trials):
    """Each trial ``(quality, joules)`` comes to the first rung after the other; who goes on."""
    rule = Halving(config)
    energies, verdicts = {}, []
    for number, (quality, energy_j) in enumerate(trials):
        energies[number] = energy_j
        rule.reach(number, RungPoint(config.min_epochs, quality, 0.01))
        verdicts.append(rule.verdict(number, config.min_epochs, energies).goes_on)
    return verdicts


def test_a_dominated_trial_stops_at_once_and_the_better_third_goes_on():
    assert run(CONFIG, (0.9, 1e-6), (0.5, 2e-6), (0.6, 3e-6)) == [True, False, False]
    # Four at a rung: two go on, be the second of them dominated.
    assert run(CONFIG, (0.9, 1e-6), (0.5, 2e-6), (0.6, 3e-6), (0.8, 2e-6))[-1] is True


def test_what_is_clear_on_the_front_is_not_stopped():
    line = [(0.5 + 0.05 * i, 1e-6 * 2**i) for i in range(8)]
    assert all(run(CONFIG, *line))
    # By less than a standard error is no margin: the best third of the rung decides.
    crowded = [(0.80 + 0.001 * i, 1e-6 * 1.01**i) for i in range(8)]
    verdicts = run(CONFIG, (0.95, 4e-6), (0.2, 1e-7), *crowded)
    assert verdicts.count(False) >= 3


def test_equal_trials_do_not_protect_each_other():
    assert run(CONFIG, *[(0.9, 1e-6)] * 9).count(True) < 9


def test_verdicts_do_not_depend_on_when_joules_were_learnt():
    rule = Halving(CONFIG)
    for number, quality in enumerate((0.9, 0.8, 0.7)):
        rule.reach(number, RungPoint(4, quality, 0.01))
    cheap = {0: 1e-6, 1: 2e-6, 2: 1e-7}
    dear = {0: 1e-6, 1: 2e-6, 2: 3e-6}
    assert rule.verdict(2, 4, cheap).goes_on and not rule.verdict(2, 4, dear).goes_on


def test_reaching_a_rung_again_replaces_what_was_said_there():
    rule = Halving(CONFIG)
    energies = {0: 1e-6, 1: 2e-6}
    rule.reach(0, RungPoint(4, 0.9, 0.01))
    for _ in range(5):
        rule.reach(1, RungPoint(4, 0.5, 0.01))
    verdict = rule.verdict(1, 4, energies)
    assert (verdict.rank, verdict.of, verdict.best) == (1, 2, 1) and not verdict.goes_on
    assert "at epoch 4" in verdict.reason and "0.5" in verdict.reason


def test_what_reached_no_such_rung_is_refused():
    with pytest.raises(ValueError, match="epoch 4"):
        Halving(CONFIG).verdict(0, 4, {0: 1e-6})


def test_the_help_names_the_shares_that_trials_are_compared_at():
    from nas.cli.main import build_parser
    from nas.cli.shell.parsing import leaves

    (search,) = (p for words, p in leaves(build_parser()) if words == ("search",))
    (text,) = (a.help for a in search._actions if "--halving" in a.option_strings)
    epochs = 120
    shares = [
        f"{round(12 * e / epochs)}/12" for e in HalvingConfig.for_epochs(epochs).rungs(epochs)
    ]
    assert re.findall(r"\d+/\d+", text) == shares
