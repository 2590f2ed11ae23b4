"""Scores of a network on disk, and candidates that are cut by them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from nas.tasks.base import Split
from nas.tasks.embeddings.objective import EmbeddingObjective
from nas.tasks.registry import get_task
from nas.training import fit as fit_module
from nas.training.config import DistillConfig, RecoveryConfig, TrainingConfig
from nas.training.distill import tabulate
from nas.training.fit import Setting, TrainedTeacher, fit
from nas.training.objective import Classification
from nas.training.scores import load_scores, save_scores, score
from search_spaces.architecture import STYLES, Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.build import build
from search_spaces.workload import Workload

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
    quantised = fit(PARENT.in_precision("bf16"), common, TRAINING)
    assert torch.equal(quantised.model.head.weight, network.head.weight)
    smaller = replace(PARENT, layers=PARENT.layers[:2])
    assert fit(smaller, common, TRAINING).start == "teacher"
    # Another teacher is no candidate, so its architecture is trained like any other.
    trained = fit(PARENT, setting(network, scores, is_parent=False), TRAINING)
    assert not torch.equal(trained.model.head.weight, network.head.weight)


def test_channels_of_a_network_at_its_least_loss_are_scored_by_what_outputs_lose():
    """Its own vectors are the targets: gradients of the loss are 0, yet channels differ."""
    workload = Workload("texts", "text_embedding", (8,), 16, 8, vocab_size=40)
    style = replace(STYLES["bert"], pooling="mean", has_unit_vectors=True)
    network = build(replace(PARENT, patch_size=1, style=style), workload, generator_seed=1).eval()
    tokens = torch.randint(1, 40, (64, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        vectors = network(tokens)
    targets = torch.full((64, 3), -1)
    targets[:, 0] = torch.arange(64)
    objective = EmbeddingObjective(vectors.numpy(), np.zeros(0), "recall1")
    found = score(network, Split(tokens.numpy(), targets.numpy()), objective)
    for layer, scores_F in zip(network.stack, found.importance.channels, strict=True):
        lost = []
        weight = layer.ffn.down.weight
        for channel in range(32):
            kept = weight[:, channel].clone()
            with torch.no_grad():
                weight[:, channel] = 0
                lost.append(float((network(tokens) - vectors).square().sum(1).mean()))
                weight[:, channel] = kept
        assert spearmanr(scores_F.numpy(), lost).statistic > 0.8
