"""Rows of positions are mended as genes one by one are."""

import numpy as np
import pytest

from search_spaces.space.encoding import decode, repair
from search_spaces.space.positions import is_active, repaired
from search_spaces.space.presets import PRESETS


@pytest.mark.parametrize("space", PRESETS.values(), ids=PRESETS.keys())
def test_rows_are_repaired_as_genes_are(space):
    rng = np.random.default_rng(0)
    domains = space.genes()
    rows = np.stack([rng.integers(len(d), size=60) for d in domains.values()], 1)
    for row, mended in zip(rows, repaired(rows, space), strict=True):
        genes = {
            name: domain.values[position]
            for position, (name, domain) in zip(row, domains.items(), strict=True)
        }
        expected = repair(genes, space)
        found = [
            domain.values[position]
            for position, domain in zip(mended, domains.values(), strict=True)
        ]
        assert found == list(expected.values())


@pytest.mark.parametrize("space", PRESETS.values(), ids=PRESETS.keys())
def test_a_gene_that_is_not_active_does_not_change_the_model(space):
    rng = np.random.default_rng(1)
    domains = space.genes()
    rows = repaired(np.stack([rng.integers(len(d), size=30) for d in domains.values()], 1), space)
    others = repaired(
        np.stack([rng.integers(len(d), size=30) for d in domains.values()], 1), space
    )
    active = is_active(rows, space)
    mixed = repaired(np.where(active, rows, others), space)
    assert (mixed != rows).any()

    def model(row):
        pairs = zip(row, domains.items(), strict=True)
        return decode({name: domain.values[at] for at, (name, domain) in pairs}, space)

    assert [model(row) for row in mixed] == [model(row) for row in rows]
