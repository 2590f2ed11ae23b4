"""The shape of other GPUs: what is shipped, how it is fitted, and what it is used for."""

from dataclasses import replace

import numpy as np
import pytest

from predictors.energy.active import candidates_of, first_rows
from predictors.energy.artifact import Provenance, SavedPredictor, load_predictor, save_predictor
from predictors.energy.costs import fit_log_linear
from predictors.energy.features import ROOFLINES, counted, stated_costs, terms
from predictors.energy.models import CostPredictor, Observation
from predictors.energy.shape import SHIPPED, Shape, shipped_shape
from predictors.energy.shape_fit import ShapeRows, fit_shape
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec
from search_spaces.architecture.blocks import Compression, LayerSpec
from search_spaces.architecture.style import BiasStyle, BlockStyle, PositionStyle
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

GPT = Workload("gpt", "language_modelling", (1024,), 50_304, 8, vocab_size=50_304)
IMAGES = Workload("digits", "image_classification", (1, 8, 8), 10, 128)
BF16 = Compression("bf16")
STYLE = BlockStyle(positions=PositionStyle("rotary"), biases=BiasStyle(head=False))


def decoders(n, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        width, depth = int(rng.choice([320, 640, 1280])), int(rng.integers(34, 37))
        layers = [
            LayerSpec(
                AttentionSpec(heads, heads, 64, compression=BF16),
                FfnSpec(ratio * width, compression=BF16),
            )
            for heads, ratio in zip(
                rng.choice([8, 16, 20], depth).tolist(),
                rng.choice([2, 3, 4], depth).tolist(),
                strict=True,
            )
        ]
        found.append(Architecture(width, tuple(layers), style=STYLE))
    return found


def gpu(architectures, level, power, seed=0, noise=0.02):
    """Joules of a made-up GPU that is less efficient on small networks."""
    batch = ArchitectureBatch.of(architectures)
    macs = counted(batch, GPT, "cuda")[0].total("macs")
    away = np.random.default_rng(seed).normal(0, noise, len(batch))
    return level * (macs / 1e11) ** power * np.exp(away)


def observations(architectures, joules, workload=GPT):
    return [
        Observation(a, workload, float(j), 0.02, device="cuda")
        for a, j in zip(architectures, joules, strict=True)
    ]


def shape_rows(name, architectures, joules):
    counts, features = counted(ArchitectureBatch.of(architectures), GPT, "cuda")
    values = tuple(terms(counts, GPT, roofline) for roofline in ROOFLINES)
    return ShapeRows(name, values, features, joules, np.arange(len(joules)) % 2)


def test_the_shipped_shape_names_its_source_and_has_a_notice():
    shape = shipped_shape()
    assert {"p100", "v100", "a6000", "rtx2080"} <= set(shape.devices)
    assert "HW-GPT-Bench" in shape.source and "HW-GPT-Bench" in shape.describe()
    notice = (SHIPPED.parent / "NOTICE.md").read_text()
    assert SHIPPED.name in notice and "Apache License, Version 2.0" in notice


def test_a_gpu_without_records_has_it_as_its_prior_at_a_stated_level():
    gpu_prior, stated = CostPredictor.fit([], device="cuda:0"), CostPredictor.fit([])
    assert "HW-GPT-Bench" in gpu_prior.basis and "nothing was measured" in gpu_prior.basis
    assert gpu_prior.basis != stated.basis and "HW-GPT-Bench" not in stated.basis
    architectures = decoders(20)
    here = gpu_prior.predict(architectures, GPT)
    ratio = here.mean / stated.predict(architectures, GPT).mean
    assert 0.3 < np.median(ratio) < 3
    np.testing.assert_allclose(np.log(here.high / here.low), 2 * np.log(10), rtol=1e-3)
    assert not here.in_range.any()


def test_intervals_are_wider_where_no_gpu_was_measured():
    predictor = CostPredictor.fit([], device="cuda")
    architectures = decoders(4)
    near = predictor.predict(architectures, GPT)
    for workload in (GPT.with_batch_size(1), replace(GPT, input_shape=(64,)), IMAGES):
        far = predictor.predict(architectures, workload)
        assert np.all(np.log(far.high / far.low) > 1.9 * np.log(near.high / near.low))
    few = [observations(architectures, np.ones(4), w) for w in (GPT, GPT.with_batch_size(1))]
    assert CostPredictor.fit(few[1]).log_sd > CostPredictor.fit(few[0]).log_sd


@pytest.mark.parametrize("n", [5, 12, 40])
def test_few_rows_determine_what_a_gpu_differs_in(n):
    architectures, unseen = decoders(n), decoders(60, seed=1)
    predictor = CostPredictor.fit(observations(architectures, gpu(architectures, 3.0, 0.85)))
    truth = gpu(unseen, 3.0, 0.85, noise=0)
    found = predictor.predict(unseen, GPT)
    assert np.mean(np.abs(found.mean / truth - 1)) < (0.12 if n < 10 else 0.05)
    assert np.mean((found.low <= truth) & (truth <= found.high)) > 0.8
    assert f"{n} measured records" in predictor.basis
    if n < 30:
        assert "HW-GPT-Bench" in predictor.basis


def test_rows_of_the_design_determine_more_than_random_ones():
    pool = decoders(80)
    predictor = CostPredictor.fit([], device="cuda")
    rows = candidates_of(ArchitectureBatch.of(pool), GPT, predictor)
    chosen = first_rows(rows.features, 10, basis=rows.basis).rows
    assert len(set(chosen)) == 10

    def unknown(positions):
        basis = np.hstack([np.ones((80, 1)), rows.basis]) / 0.03
        inverse = np.linalg.inv(np.eye(basis.shape[1]) + basis[positions].T @ basis[positions])
        return np.einsum("ij,jk,ik->", basis, inverse, basis)

    assert unknown(list(chosen)) < unknown(list(range(10)))


def test_a_predictor_with_the_shape_is_saved_and_read(tmp_path):
    architectures = decoders(12)
    provenance = Provenance("board", "nvml", False, "abc", ("gpt",), "2026-11-30", {})
    for rows in ([], observations(architectures, gpu(architectures, 2.0, 0.9))):
        predictor = CostPredictor.fit(rows, device="cuda")
        save_predictor(SavedPredictor(predictor, provenance), tmp_path / "p.safetensors")
        again = load_predictor(tmp_path / "p.safetensors").predictor
        assert again.basis == predictor.basis
        first, second = (p.predict(architectures, GPT) for p in (predictor, again))
        np.testing.assert_array_equal(first.mean, second.mean)
        np.testing.assert_array_equal(first.high, second.high)


def test_a_fitted_shape_has_no_level_and_predicts_another_gpu():
    made = [("a", 1.0, 0.8), ("b", 30.0, 0.9), ("c", 0.1, 1.0)]
    rows = []
    for seed, (name, level, power) in enumerate(made):
        architectures = decoders(40, seed)
        rows.append(shape_rows(name, architectures, gpu(architectures, level, power, seed)))
    shape = fit_shape(rows, "a test")
    values = rows[0].terms[ROOFLINES.index(shape.roofline)]
    level = np.log(values @ shape.costs / (values @ stated_costs()))
    assert abs(level.mean()) < 0.3
    assert shape.costs.max() < 1e3 * stated_costs().max()
    assert shape.devices == ("a", "b", "c") and shape.n_rows == 120
    assert Shape.from_dict(shape.to_dict()).describe() == shape.describe()
    with pytest.raises(ValueError, match="must be of 3 GPUs or more, got 2"):
        fit_shape(rows[:2], "a test")


def test_a_shape_of_other_features_is_refused():
    data = shipped_shape().to_dict()
    with pytest.raises(ValueError, match="features of a shape must be those of this version"):
        Shape.from_dict(data | {"features": ["x"]})
    with pytest.raises(ValueError, match="mean must be finite numbers"):
        Shape.from_dict(data | {"mean": [0.0]})


def test_outliers_do_not_move_a_log_linear_fit():
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(40, 3))
    truth = np.array([0.5, -0.3, 0.2])
    ratio = 1.0 + basis @ truth + rng.normal(0, 0.01, 40)
    ratio[:4] -= 1.0
    level, found = fit_log_linear(basis, ratio, np.full(40, 0.01))
    assert abs(level - 1.0) < 0.02
    np.testing.assert_allclose(found, truth, atol=0.03)
