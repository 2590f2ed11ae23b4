"""``nas search --evaluator``: what it asks for, and what it refuses in one line."""

import argparse

import pytest

from nas.cli.main import build_parser
from nas.cli.options import search_config
from nas.cli.options.search_options import SUPERNET_TRIALS
from nas.records.supernet import SupernetConfig


def config_of(*arguments):
    parsed: argparse.Namespace = build_parser().parse_args(
        ["search", "quickstart", "--device", "cpu", *arguments]
    )
    return search_config.config_of(parsed)


def test_scratch_is_the_default_and_a_supernet_has_more_trials():
    plain = config_of()
    assert plain.supernet is None and config_of("--evaluator", "scratch") == plain
    shared = config_of("--evaluator", "supernet")
    assert shared.supernet == SupernetConfig()
    assert shared.trials == SUPERNET_TRIALS * plain.trials
    assert config_of("--evaluator", "supernet", "--trials", "50").trials == 50
    assert config_of("--evaluator", "supernet", "--finalists", "3").supernet.finalists == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--evaluator", "oracle"), "evaluator must be one of scratch, supernet, got 'oracle'"),
        (("--finalists", "3"), "finalists must go with --evaluator supernet, got 3"),
        (("--evaluator", "supernet", "--finalists", "0"), "finalists must be an integer >= 1"),
        (("--evaluator", "supernet", "--halving"), "halving must be None with a supernet"),
        (("--evaluator", "supernet", "--inherit"), "inherit_share must be None with a supernet"),
        (("--evaluator", "supernet", "--warm-start", "a"), "warm_start must be empty with"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, words):
    with pytest.raises(ValueError, match=words) as error:
        config_of(*arguments)
    assert "\n" not in str(error.value)
