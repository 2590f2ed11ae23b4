"""The command line is a promise: verbs and options change only together with this file."""

import argparse

from nas.cli.main import build_parser

LIMITS = ("--max-latency-ms", "--max-params", "--max-memory")
FORMATS = ("--json", "--csv", "--markdown")
FROZEN = {
    "search": {
        "recipe",
        "--from",
        "--no-fine-tune",
        "--hours",
        "--task",
        "--space",
        "--loadable",
        "--trials",
        "--workers",
        "--seed",
        "--sampler",
        "--max-joules",
        *LIMITS,
        "--objective",
        "--reference",
        "--device",
        "--meter",
        "--runtime",
        "--measure-on",
        "--epochs",
        "--shift",
        "--flip",
        "--halving",
        "--evaluator",
        "--finalists",
        "--refine",
        "--no-calibration",
        "--distill",
        "--teacher",
        "--inherit",
        "--baseline",
        "--warm-start",
        "--predictor",
        "--carbon-g-per-kwh",
        "--storage",
        "--address",
        "--gpus-per-trial",
        "--trial-timeout-s",
        "--log",
        "--run",
        "--resume",
        "--plugin",
        "--quiet",
        "--json",
    },
    "calibrate": {
        *("recipe", "--task", "--space", "--plugin", "--labels", "--seed"),
        *("--device", "--meter", "--runtime", "--quiet", "--json"),
    },
    "resume": {
        "run",
        "--trials",
        "--refine",
        "--workers",
        "--address",
        "--gpus-per-trial",
        "--trial-timeout-s",
        "--log",
        "--storage",
        "--plugin",
        "--task",
        "--quiet",
        "--json",
    },
    "front": {
        "--storage",
        "run",
        "--device",
        "--max-joules",
        *LIMITS,
        "--min-quality",
        "--knee",
        "--recommended",
        "--exportable",
        "--at-least-as-accurate-as",
        "--inferences",
        "--top",
        *FORMATS,
        "--baseline",
        "--carbon-g-per-kwh",
    },
    "explain": {"--storage", "run", "trial", "--json"},
    "plot": {"--storage", "run", "--from", "--what", "--trial", "--to", "--json"},
    "report": {"--storage", "run", "--device", "--to", "--optuna", "--watch", "--port", "--json"},
    "compare": {"--storage", "run_a", "run_b", "--device", *FORMATS},
    "export": {
        "--storage",
        "run",
        "--from",
        "--architecture",
        "--gguf-type",
        "--trial",
        "--max-joules",
        *LIMITS,
        "--min-quality",
        "--knee",
        "--recommended",
        "--exportable",
        "--to",
        "--joule-tolerance",
        "--format",
        "--quality-tolerance",
        "--plugin",
        "--task",
        "--quiet",
        "--json",
    },
    "measure": {
        "files",
        "--from",
        "--sequence-length",
        "--image-size",
        "--precision",
        "--rounds",
        "--runtime",
        "--space",
        "--sample",
        "--active",
        "--compare",
        "--task",
        "--workload",
        "--batch-size",
        "--phase",
        "--device",
        "--meter",
        "--protocol",
        "--regime",
        "--seed",
        "--to",
        "--budget-s",
        "--retry-failed",
        "--plugin",
        "--quiet",
        "--json",
    },
    "predictor": {"action"},
    "predictor fit": {"records", "--to", "--adapt", "--seed", "--json"},
    "predictor predict": {
        "predictor",
        "--from",
        "--sequence-length",
        "--image-size",
        "--precision",
        "--phase",
        "files",
        "--task",
        "--batch-size",
        "--confidence",
        "--for-device",
        "--json",
    },
    "predictor evaluate": {"records", "--plot", "--seed", "--quiet", "--json"},
    "check-data": {"task", "--plugin", "--json"},
    "doctor": {"--device", "--kernels", "--quiet", "--json"},
    "completion": {"shell", "--json"},
}


def commands(parser, prefix=""):
    """Every verb and action with its parser."""
    for group in (a for a in parser._actions if isinstance(a, argparse._SubParsersAction)):
        for name, sub in group.choices.items():
            yield prefix + name, sub
            yield from commands(sub, f"{prefix}{name} ")


def test_verbs_and_options_are_those_promised():
    parser = build_parser()
    found = {
        name: {
            (a.option_strings or [a.dest])[-1]
            for a in sub._actions
            if a.dest not in ("help", "debug")
        }
        for name, sub in commands(parser)
    }
    assert found == FROZEN


def test_every_option_says_what_it_is():
    parser = build_parser()
    for name, sub in commands(parser):
        for action in sub._actions:
            assert action.help, f"nas {name} {action.dest}"
