"""Real checkpoints, where ``make checkpoints`` has fetched them."""

import json
import math
from pathlib import Path

import pytest
import torch
from encoder_fakes import encoder_layers
from pretrained_fakes import largest_difference, streams

from nas.tasks.sequences.passages import Passage
from nas.tasks.sequences.windows import cut_windows
from nas.tasks.text.tokenize import TextEncoder
from search_spaces.pretrained import load_checkpoint

ROOT = Path(__file__).parents[3]
MINILM = ROOT / "build" / "checkpoints" / "all-minilm-l6-v2"
SMOLLM2 = ROOT / "build" / "checkpoints" / "smollm2-135m-instruct"
# Data beside the project or in it, which are no part of it.
SHAKESPEARE = [
    folder / "shared" / "data" / "tinyshakespeare" / "input.txt" for folder in (ROOT, ROOT.parent)
]
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


@pytest.fixture(scope="module")
def smollm2():
    pytest.importorskip("gguf")
    if not SMOLLM2.is_dir():
        pytest.skip("make checkpoints fetches SmolLM2-135M-Instruct")
    return load_checkpoint(SMOLLM2)


def encoder_of(checkpoint, length):
    text = json.dumps(checkpoint.files["tokenizer.json"])
    return TextEncoder.from_json(text, length, shift=0, where=str(checkpoint.folder))


def test_smollm2_is_described_by_its_file(smollm2):
    assert smollm2.architecture.describe().startswith("d576 L30 h9/3 ff1536 llama(")
    assert smollm2.license == "apache-2.0" and smollm2.longest == 8192
    encoder = encoder_of(smollm2, 64)
    ids, _ = next(encoder.encode_whole(["Hello world! 123"]))
    # Published tokens of this model.
    assert ids.tolist() == [19556, 905, 17, 216, 33, 34, 35]
    text = "Caf\u00e9 d\u00e9j\u00e0 vu,  two spaces\n<|im_end|>"
    assert encoder.decode(next(encoder.encode_whole([text]))[0].tolist()) == text


# Up to a minute: transformers dequantises 135 million parameters one tensor after another.
@pytest.mark.thorough
def test_smollm2_is_that_of_transformers(smollm2):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    path = smollm2.folder
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    tokens = torch.arange(1000, 1064)[None]
    with torch.no_grad():
        difference = largest_difference([smollm2.build()(tokens)], [theirs(tokens).logits])
    assert difference < 1e-4


# A minute and a half: 135 million parameters read 9,700 tokens.
@pytest.mark.thorough
def test_smollm2_predicts_shakespeare_at_the_known_bits_per_byte(smollm2):
    path = next((path for path in SHAKESPEARE if path.is_file()), None)
    if path is None:
        pytest.skip("Tiny Shakespeare is not there")
    length, text = 512, path.read_text()
    # Two parts far from each other.
    slices = [text[start : start + 16_384] for start in (0, 1_000_000)]
    passages = [Passage("test", path, 1, part) for part in slices]
    windows = cut_windows(passages, encoder_of(smollm2, length), length)
    network, nats = smollm2.build(), 0.0
    with torch.no_grad():
        for row in torch.from_numpy(windows.tokens):
            scores = network(row[None, :-1])[0].double()
            nats += float(torch.nn.functional.cross_entropy(scores, row[1:], reduction="sum"))
    bits = nats / math.log(2) / int((windows.ends - windows.starts).sum())
    assert len(windows.tokens) == 19 and abs(bits - 1.62) < 0.005
