"""Where weights start, masks that hold, and quantisation-aware training where it is needed."""

from dataclasses import replace

import pytest
import torch

from nas.tasks.base import Task
from nas.tasks.registry import get_task
from nas.training import fit as fit_module
from nas.training.config import DistillConfig, RecoveryConfig, TrainingConfig
from nas.training.distill import tabulate
from nas.training.fit import Setting, TrainedTeacher, fit, fits_in, recover, short
from nas.training.loop import train
from search_spaces.architecture import Architecture, AttentionSpec, Compression, FfnSpec, LayerSpec
from search_spaces.compression.apply import compress
from search_spaces.compression.sparsity import mask_2_4
from search_spaces.models.build import build

# Models this small flip some samples by chance, so the line is drawn above that.
CONFIG = TrainingConfig(
    epochs=10,
    batch_size=64,
    learning_rate=5e-3,
    recovery=RecoveryConfig(share=0.2, qat_threshold=0.02),
)


class NoTest(Task):
    """The digits, whose test split nobody may ask for."""

    name = "digits"

    def __init__(self):
        self._task = get_task("digits")

    def workload(self, batch_size):
        return self._task.workload(batch_size)

    def split(self, name):
        assert name != "test"
        return self._task.split(name)


TASK = NoTest()
WORKLOAD = TASK.workload(120)


PLAIN = Compression()


def architecture(compression=PLAIN, d_model=16, d_ff=32, depth=1, rank=None):
    attention = AttentionSpec(2, 2, d_model // 2, compression=compression)
    ffn = FfnSpec(d_ff, rank=rank, compression=compression)
    return Architecture(d_model, (LayerSpec(attention, ffn),) * depth, patch_size=4)


@pytest.fixture(scope="module")
def trained():
    model = build(architecture(), WORKLOAD, generator_seed=0)
    return train(model, TASK.split("train"), CONFIG, seed=0).state_dict()


def network(state, found):
    model = build(found, WORKLOAD, generator_seed=0).eval()
    model.load_state_dict(state)
    return model


def with_outliers(model, factor):
    """The same function, with one input column of each projection ``factor`` times as large."""
    with torch.no_grad():
        for layer in model.layers:
            for norm, readers in (
                (layer.attention_norm, (layer.attention.q, layer.attention.k, layer.attention.v)),
                (layer.ffn_norm, (layer.ffn.up,)),
            ):
                norm.weight[0] /= factor
                norm.bias[0] /= factor
                for reader in readers:
                    reader.weight[:, 0] *= factor
    return model


def test_outliers_that_quantising_loses_are_recovered_by_training_as_if_quantised(trained):
    found = architecture(Compression("int8"))
    model = with_outliers(network(trained, found), 400.0)
    longer = replace(CONFIG, recovery=replace(CONFIG.recovery, share=0.6))
    result = recover(model, found, Setting(TASK, WORKLOAD, seed=0), longer)
    plain = fit_module.evaluate(
        compress(model, found), TASK.split("validation"), batch_size=120
    ).value
    assert result.uncompressed.value - plain > 0.1
    lost, regained = result.uncompressed.value - plain, result.validation.value - plain
    assert result.qat == "kept" and regained > lost / 2
    again = fit_module.evaluate(
        compress(result.model, found), TASK.split("validation"), batch_size=120
    )
    assert again == result.validation


def test_where_quantising_costs_nothing_no_training_follows(trained, monkeypatch):
    def never(*_):
        raise AssertionError("quantisation-aware training was not needed")

    monkeypatch.setattr(fit_module, "fake_quantised", never)
    for compression in (Compression("int8"), Compression("bf16"), PLAIN):
        found = architecture(compression)
        result = recover(network(trained, found), found, Setting(TASK, WORKLOAD, seed=0), CONFIG)
        assert result.qat == "not needed"
        assert result.uncompressed.value - result.validation.value <= 0.02


def test_the_worse_of_both_is_never_kept(trained, monkeypatch):
    found = architecture(Compression("int8"))
    model = with_outliers(network(trained, found), 400.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wild = replace(CONFIG, learning_rate=50.0)
    result = recover(model, found, Setting(TASK, WORKLOAD, seed=0), wild)
    assert result.qat == "no better"
    assert all(torch.equal(before[n], v) for n, v in result.model.state_dict().items())


def test_masks_hold_through_the_fine_tune(trained):
    found = architecture(Compression("fp32", "2:4"))
    model = network(trained, found)
    weight = model.layers[0].ffn.up.weight
    mask, before = mask_2_4(weight), weight.detach().clone()
    result = recover(model, found, Setting(TASK, WORKLOAD, seed=0), CONFIG)
    after = result.model.layers[0].ffn.up.weight
    assert torch.equal(after == 0, ~mask)
    assert not torch.allclose(after[mask], before[mask])
    # What training left is what runs: setting the mask once more changes nothing.
    assert result.uncompressed == result.validation


@pytest.fixture(scope="module")
def teacher(trained):
    model = network(trained, architecture())
    return TrainedTeacher(model, architecture(), tabulate(model, TASK.split("train"), CONFIG))


def test_what_fits_starts_from_the_teacher_and_the_rest_from_random_weights(teacher):
    config = replace(
        CONFIG,
        epochs=4,
        distill=DistillConfig(),
        recovery=RecoveryConfig(inherit_share=0.25),
    )
    smaller, narrower = architecture(d_ff=16), architecture(d_model=8, d_ff=16)
    assert fits_in(architecture(), smaller) and not fits_in(architecture(), narrower)
    found = {
        name: fit(shape, Setting(TASK, WORKLOAD, seed=1, teacher=teacher), how)
        for name, shape, how in (
            ("inherited", smaller, config),
            ("narrower", narrower, config),
            ("random", smaller, replace(config, epochs=1, recovery=RecoveryConfig())),
        )
    }
    assert [f.start for f in found.values()] == ["teacher", "random", "random"]
    # One epoch each: only the weights that they start from differ.
    assert found["inherited"].validation.value > found["random"].validation.value + 0.2


def test_a_short_fine_tune_is_short_and_gentle():
    config = short(replace(CONFIG, epochs=40), 0.1)
    assert config.epochs == 4 and config.learning_rate == pytest.approx(1.5e-3)
    assert short(replace(CONFIG, epochs=2), 0.1).epochs == 1


def test_fit_repeats_itself(teacher):
    config = replace(CONFIG, epochs=2, distill=DistillConfig(feature_weight=1.0))
    found = [
        fit(
            architecture(Compression("int8"), d_ff=24),
            Setting(TASK, WORKLOAD, seed=5, teacher=teacher),
            config,
        )
        for _ in range(2)
    ]
    states = [f.model.state_dict() for f in found]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert found[0].validation == found[1].validation
