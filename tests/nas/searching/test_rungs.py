"""Rungs: at which epochs trials are compared."""

import re

import pytest

from nas.records.rungs import HalvingConfig

CONFIG = HalvingConfig(eta=3, min_epochs=4, startup_trials=0)


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
