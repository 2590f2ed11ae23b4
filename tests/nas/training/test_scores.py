"""Scores of a network on disk, and candidates that are cut by them."""

from dataclasses import replace

import pytest
import torch

from nas.tasks.base import Split
from nas.tasks.registry import get_task
from nas.training import fit as fit_module
from nas.training.config import DistillConfig, RecoveryConfig, TrainingConfig
from nas.training.distill import tabulate
from nas.training.fit import Setting, TrainedTeacher, fit
from nas.training.objective import Classification
from nas.training.scores import load_scores, save_scores, score
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.build import build

TASK = get_task("digits")
WORKLOAD = TASK.workload(64)
LAYER = LayerSpec(AttentionSpec(2, 2, 8), FfnSpec(32))
PARENT = Architecture(16, (LAYER,) * 3, 4)
TRAINING = TrainingConfig(
    epochs=2, distill=DistillConfig(), recovery=RecoveryConfig(inherit_share=0.5)
)


@pytest.fixture(scope="module")
def network():
    return build(PARENT, WORKLOAD, generator_seed=0).eval()


@pytest.fixture(scope="module")
def scores(network):
    return score(network, TASK.split("train"), Classification())


def tensors_of(scores):
    found = [*scores.importance.heads, *scores.importance.channels, scores.importance.layers]
    for layer in scores.moments.layers:
        found += [layer.attention, layer.heads, layer.ffn, layer.channels]
    return found


def test_scores_are_of_every_layer_and_survive_the_file(scores, tmp_path):
    assert scores.layers_by == "loss of sets"
    assert scores.importance.layers.sum(dim=1).tolist() == [1, 2, 3]
    assert [len(c) for c in scores.importance.channels] == [32] * 3
    assert scores.moments.layers[0].channels.shape == (33, 33)
    save_scores(scores, tmp_path / "scores.safetensors")
    again = load_scores(tmp_path / "scores.safetensors")
    assert again.layers_by == scores.layers_by
    for one, other in zip(tensors_of(scores), tensors_of(again), strict=True):
        assert torch.equal(one, other)


def test_moments_of_ranks_are_left_out_where_there_are_none(network):
    few = score(network, TASK.split("train"), Classification(), has_rank=False)
    assert few.moments.layers[0].attention is None and few.moments.layers[0].ffn is None
    assert few.moments.layers[0].heads is not None


def test_moments_that_fill_a_file_are_left_out_largest_first(network, monkeypatch, tmp_path):
    monkeypatch.setattr("nas.training.scores._MOST_MOMENTS_BYTES", 4 * 3 * 33 * 33)
    few = score(network, TASK.split("train"), Classification())
    assert few.moments.layers[0].channels is None and few.moments.layers[0].heads is not None
    save_scores(few, tmp_path / "s")
    assert load_scores(tmp_path / "s").moments.layers[1].channels is None


@pytest.mark.parametrize("content", [None, b"no tensors"])
def test_a_file_that_holds_none_is_one_line(content, tmp_path):
    path = tmp_path / "scores.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="must hold scores") as caught:
        load_scores(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def setting(network, scores, *, is_parent):
    short = replace_split(TASK, 128)
    outputs = tabulate(network, short.split("train"), TRAINING)
    teacher = TrainedTeacher(network, PARENT, outputs, scores, is_parent)
    return Setting(short, WORKLOAD, 0, teacher=teacher)


def replace_split(task, n):
    class Short(type(task)):
        def split(self, name):
            split = super().split(name)
            return Split(split.inputs[:n], split.targets[:n])

    return Short()


def test_a_parent_is_itself_and_its_cuts_are_trained(network, scores, monkeypatch):
    def never(*_, **__):
        raise AssertionError("the run has scores")

    monkeypatch.setattr(fit_module, "score", never)
    common = setting(network, scores, is_parent=True)
    own = fit(PARENT, common, TRAINING)
    for name, value in own.model.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])
    smaller = replace(PARENT, layers=PARENT.layers[:2])
    assert fit(smaller, common, TRAINING).start == "teacher"
    # Another teacher is no candidate, so its architecture is trained like any other.
    trained = fit(PARENT, setting(network, scores, is_parent=False), TRAINING)
    assert not torch.equal(trained.model.head.weight, network.head.weight)
