"""Outputs that are NaN fail a proof in every batch, not in the first alone."""

import math

import pytest
import torch
from safetensors.torch import save_file

from nas.exporting import verify_worker
from nas.exporting.formats import stock_worker
from nas.exporting.formats.base import Loaded


def nan_beyond(n_rows):
    """A network whose outputs are NaN in batches of more than ``n_rows``."""
    return lambda inputs: inputs + (float("nan") if len(inputs) > n_rows else 0.0)


def test_a_stock_class_with_nan_is_no_proof(tmp_path, monkeypatch):
    facts = {"class": "X", "version": "transformers 9", "missing": []}
    monkeypatch.setattr(stock_worker, "_by_its_module", lambda job: (nan_beyond(2), facts))
    for n_rows in ((3, 1), (1, 3), (1, 3, 1)):
        batches = {f"inputs.{index}": torch.ones(n, 4) for index, n in enumerate(n_rows)}
        batches |= {f"outputs.{index}": torch.ones(n, 4) for index, n in enumerate(n_rows)}
        save_file(batches, tmp_path / "batches.safetensors")
        found = stock_worker.findings(
            {
                "class": None,
                "kind": "text_classification",
                "weights": None,
                "batches": str(tmp_path / "batches.safetensors"),
                "n_batches": len(n_rows),
            }
        )
        assert math.isnan(found["output_difference"]) and found["largest_output"] == 1


def test_a_format_with_nan_in_one_batch_is_no_proof():
    check = {"inputs": torch.ones(3, 4), "outputs": torch.ones(3, 4)}
    loaded = Loaded(nan_beyond(2), "runtime 1")
    for sizes in ((1, 3), (3, 1)):
        with pytest.raises(ValueError, match="outputs of a batch of 3 must be finite"):
            verify_worker.largest_difference(loaded, check, sizes, "cpu")
    assert verify_worker.largest_difference(loaded, check, (1, 2), "cpu") == 0
