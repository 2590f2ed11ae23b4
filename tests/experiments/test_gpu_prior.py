"""NVML readings of others: what is read, what is left out, and the commands that use them."""

import gzip

import numpy as np
import pandas as pd
import pytest

from experiments import fit_gpu_prior
from experiments.benchmarks.prediction import gpu_prior, model_level
from experiments.benchmarks.prediction.gpu_prior import Device, run
from experiments.benchmarks.prediction.model_level import model_table, unseen_families
from experiments.benchmarks.prediction.predictor_tables import run_cell
from experiments.benchmarks.tables.nvml_gpt import read_nvml_gpt
from predictors.energy.shape import shipped_shape


def readings(n=24, gpu="P100"):
    """Made-up rows: joules grow with width, and forwards take 100 ms or more."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(n):
        width, depth = int(rng.choice([256, 512, 1024])), 2
        heads, ratios = rng.choice([8, 12, 16], depth), rng.choice([2, 3, 4], depth)
        energy = width * (10 + ratios.sum() + heads.sum() / 10) / 100
        rows.append(
            {
                "gpu": gpu,
                "scale": "m",
                "session": "first" if index % 2 else "second",
                "d_model": width,
                "depth": depth,
                "heads": "-".join(map(str, heads)),
                "mlp_ratios": "-".join(map(str, ratios)),
                "bias": index % 2,
                "batch": 8,
                "tokens": 1024,
                "energy_j_median": energy,
                "energy_j_q25": 0.99 * energy,
                "energy_j_q75": 1.01 * energy,
                "power_w_median": 200.0,
                "n_readings": 50,
            }
        )
    return pd.DataFrame(rows)


def written(tmp_path, data):
    path = tmp_path / "readings.csv.gz"
    path.write_bytes(gzip.compress(data.to_csv(index=False).encode()))
    return path


def test_rows_are_decoders_of_their_columns_in_joules_a_sample(tmp_path):
    data = readings(4)
    rows = read_nvml_gpt(written(tmp_path, data))["p100"]
    assert len(rows) == 4 and rows.workload.batch_size == 8
    first, row = rows.architectures[0], data.iloc[0]
    assert [str(x.attention.n_heads) for x in first.layers] == row.heads.split("-")
    assert [str(x.ffn.d_ff // first.d_model) for x in first.layers] == row.mlp_ratios.split("-")
    assert not first.style.biases.ffn and rows.architectures[1].style.biases.ffn
    assert rows.energy_j[0] == pytest.approx(row.energy_j_median / 8)
    assert rows.observations()[0].device == "cuda"
    assert set(rows.session) == {"m first", "m second"}


def test_short_idle_and_scattered_readings_are_left_out(tmp_path):
    data = readings()
    data.loc[0, ["energy_j_median", "energy_j_q25", "energy_j_q75"]] = [4.0, 4.0, 4.0]
    data.loc[1, "power_w_median"] = 90.0
    data.loc[2, "energy_j_q75"] *= 1.2
    rows = read_nvml_gpt(written(tmp_path, data))["p100"]
    kept = rows.trusted
    assert len(rows) == 24 and len(kept) == 21
    assert set(rows.energy_j[:3]).isdisjoint(kept.energy_j)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("heads", "8", "heads and ratios of each of 2 layers, got 1 and 2"),
        ("mlp_ratios", "2-x", "whole numbers as 8-16-8"),
        ("tokens", 512, "one batch size and length"),
        ("energy_j_median", None, "a value in every row of 'energy_j_median'"),
    ],
)
def test_a_damaged_table_is_one_line(tmp_path, capsys, column, value, words):
    data = readings()
    data[column] = data[column].astype(object)
    data.loc[0, column] = value
    path = written(tmp_path, data)
    for command in (fit_gpu_prior, gpu_prior, model_level):
        assert command.main([str(path)]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_too_few_gpus_make_no_shape_and_leave_no_file(tmp_path, capsys):
    path = written(tmp_path, readings(120))
    assert fit_gpu_prior.main([str(path), "--to", str(tmp_path / "shape.json")]) == 2
    assert "must be of 3 GPUs or more, got 1" in capsys.readouterr().err
    assert not (tmp_path / "shape.json").exists()


def test_a_left_out_gpu_is_judged_on_rows_that_are_no_training(tmp_path):
    measured, rows = fit_gpu_prior.read_shape_rows(written(tmp_path, readings(150)))
    device = Device.of("p100", measured["p100"], rows["p100"], shipped_shape())
    lines = run(device, 1, in_session=True, baselines=False)
    assert {line["n"] for line in lines} == {10, 20}
    ours = [x for x in lines if x["way"].startswith("ours, ") and x["n"] == 20]
    assert len(ours) == 2 and all(line["mape"] < 10 for line in ours)
    assert all(0 <= line["coverage"] <= 1 for line in ours)


def test_a_model_level_table_has_a_few_numbers_and_widths_as_families(tmp_path):
    rows = read_nvml_gpt(written(tmp_path, readings(200)))["p100"]
    table = model_table(rows)
    assert table.raw.shape[1] == table.inputs.shape[1] == 2
    assert len(np.unique(table.groups)) == 3
    np.testing.assert_allclose(np.exp(table.inputs[:, 0]), table.flops)
    unseen = unseen_families(table, 40, 1, baselines=False)
    seen = run_cell(table, 40, 1, baselines=False)
    assert unseen is not None and unseen.scores["ours"].mape > seen.scores["ours"].mape
