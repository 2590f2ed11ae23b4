"""Mutated folders of every family: a network, or one line that says what is wrong."""

import random
import resource
from collections import Counter

import pytest
import torch
from mutated_folders import CONFIGS, mutate, tensors_of, write

from search_spaces.pretrained import load_checkpoint


def run(network, workload):
    """Run a network on what its workload says."""
    if workload.is_image:
        inputs = torch.randn(2, *workload.input_shape)
    else:
        inputs = torch.randint(workload.vocab_size, (2, min(4, *workload.input_shape)))
    with torch.no_grad():
        return network(inputs)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_folders_themselves_are_valid(name, tmp_path):
    for is_sharded in (False, True):
        write(tmp_path / "m", CONFIGS[name], tensors_of(CONFIGS[name]), is_sharded=is_sharded)
        checkpoint = load_checkpoint(tmp_path / "m")
        assert run(checkpoint.build(), checkpoint.workload).isfinite().all()


def outcomes(folder, seeds):
    """Mutate a folder for each seed, and count what came of it."""
    tensors = {name: tensors_of(config) for name, config in CONFIGS.items()}
    counts = Counter()
    for seed in seeds:
        rng = random.Random(seed)
        name = rng.choice(sorted(CONFIGS))
        write(folder, CONFIGS[name], tensors[name], is_sharded=rng.random() < 0.3)
        mutate(folder, rng)
        try:
            checkpoint = load_checkpoint(folder)
            network = checkpoint.build()
        except ValueError as error:
            line = str(error)
            assert line.isprintable() and str(folder) in line and len(line) < 1000, (seed, line)
            counts["refused"] += 1
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed} of {name}") from error
        assert not network.training
        run(network, checkpoint.workload)
        counts["built"] += 1
    return counts


def check(folder, seeds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = outcomes(folder, seeds)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert min(counts["refused"], counts["built"]) > len(seeds) / 10, counts
    # The folders have some 10 kB.
    assert grown_kb < 200_000


def test_mutated_folders_are_refused_by_one_line_or_built(tmp_path):
    check(tmp_path / "m", range(60))


@pytest.mark.thorough
def test_a_thousand_mutated_folders_are_refused_by_one_line_or_built(tmp_path):
    check(tmp_path / "m", range(1_000, 2_000))
