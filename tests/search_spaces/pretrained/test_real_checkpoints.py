"""Real checkpoints, where ``make checkpoints`` has fetched them."""

from pathlib import Path

import pytest
import torch
from encoder_fakes import encoder_layers
from pretrained_fakes import largest_difference, streams

from search_spaces.pretrained import load_checkpoint

MINILM = Path(__file__).parents[3] / "build" / "checkpoints" / "all-minilm-l6-v2"
TEXTS = [
    "A search for networks that need fewer joules.",
    "Networks are searched that use less energy.",
    "The cat sleeps on a warm stove.",
    " ".join(["A text of more tokens than most."] * 60),
]


@pytest.fixture(scope="module")
def theirs():
    transformers = pytest.importorskip("transformers")
    if not MINILM.is_dir():
        pytest.skip("make checkpoints fetches all-MiniLM-L6-v2")
    return transformers.AutoModel.from_pretrained(MINILM, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def batch():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    return tokenizer(TEXTS, padding=True, truncation=True, max_length=512, return_tensors="pt")


def mean_of(network, batch):
    keep_BT1 = batch["attention_mask"][..., None]
    stream_BTD = network(**batch).last_hidden_state
    return torch.nn.functional.normalize((stream_BTD * keep_BT1).sum(1) / keep_BT1.sum(1))


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_minilm_is_that_of_transformers(theirs, batch, dtype, most):
    checkpoint, theirs = load_checkpoint(MINILM), theirs.to(dtype)
    style = checkpoint.architecture.style
    assert checkpoint.workload.kind == "text_embedding" and style.pooling == "mean"
    assert checkpoint.architecture.depth == 6 and checkpoint.license == "apache-2.0"
    assert batch["input_ids"].shape == (4, 512)
    ours, keep = checkpoint.build(dtype=dtype), batch["attention_mask"].bool()
    *expected, their_vectors = streams(encoder_layers(theirs), lambda: mean_of(theirs, batch))
    *found, vectors = streams(ours.stack, lambda: ours(batch["input_ids"]))
    assert largest_difference(found, expected, keep) < most
    assert largest_difference([vectors], [their_vectors]) < most
    # Texts of one meaning are closer than others.
    alike = torch.nn.functional.cosine_similarity(vectors[:1], vectors[1:3])
    assert alike[0] > alike[1] + 0.3
