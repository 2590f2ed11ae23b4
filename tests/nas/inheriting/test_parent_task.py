"""A user's task as a checkpoint reads it, and the checkpoint's network on it."""

import json

import numpy as np
import pytest
import torch
import yaml
from parent_fakes import WORDS, causal_checkpoint, image_checkpoint, review_task, text_checkpoint
from PIL import Image
from text_fakes import tale, write_task

from nas.inheriting.parent import imported, parent_architecture, parent_on
from nas.inheriting.task_of_parent import task_of_parent
from nas.tasks.registry import get_task
from search_spaces.pretrained import load_checkpoint


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return text_checkpoint(tmp_path_factory.mktemp("checkpoints") / "bert")


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    return review_task(tmp_path_factory.mktemp("data"), tokens="bpe")


def shapes(folder, n=24, side=16):
    rng = np.random.default_rng(0)
    for label in ("dark", "light"):
        (folder / "images" / label).mkdir(parents=True)
        for index in range(n):
            low = 0 if label == "dark" else 120
            pixels = rng.integers(low, low + 120, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / label / f"{index}.png")
    return write_task(folder / "shapes.yaml", name="shapes", kind="images", data="images")


def on_task(checkpoint, task, folder, *, loadable=False):
    """The parent's network on its task, in a run of ``folder``."""
    with imported(checkpoint, task, folder) as parent:
        made = get_task(parent.task)
        workload = made.workload(4)
        loaded = load_checkpoint(parent.folder)
        architecture = parent_architecture(loaded, workload, loadable=loadable)
        return made, parent_on(made, workload, parent.folder, architecture, 0), parent.notes


def test_texts_are_in_the_checkpoints_tokens(bert, reviews, tmp_path):
    task, parent, notes = on_task(bert, reviews, tmp_path / "run")
    workload = task.workload(4)
    assert workload.vocab_size == 97 and workload.padding_token == 0
    assert workload.input_shape == (12,) and workload.n_classes == 2
    inputs = task.split("train").inputs
    assert (inputs[:, 0] == WORDS.index("[CLS]")).all()
    assert inputs.max() < len(WORDS) and (inputs == 0).any()
    assert any("replace tokens" in note for note in notes)
    # Only the head of the network is new; all other weights are the checkpoint's.
    assert parent.new == ("head.weight", "head.bias")
    own = load_checkpoint(bert).with_length(12).build()
    with torch.no_grad():
        texts = torch.from_numpy(inputs[:5])
        logits = parent.network(texts)
        pooled = own(texts)
        assert torch.allclose(logits, parent.network.head(pooled), atol=1e-5)


def test_padding_is_the_checkpoints(tmp_path, reviews):
    folder = text_checkpoint(tmp_path / "roberta", "roberta, padding 4")
    task, parent, _ = on_task(folder, reviews, tmp_path / "run")
    assert task.workload(1).padding_token == 4
    inputs = task.split("train").inputs
    assert (inputs == 4).any() and not (inputs == 0).any()
    texts = torch.from_numpy(inputs[:4])
    with torch.no_grad():
        whole = parent.network(texts)
        longest = int((texts != 4).sum(1).max())
        assert torch.allclose(whole, parent.network(texts[:, :longest]), atol=1e-5)


def test_a_head_for_the_same_classes_stays(tmp_path, reviews):
    labels = {0: "neg", 1: "pos"}
    named = text_checkpoint(
        tmp_path / "named",
        head="ForSequenceClassification",
        id2label=labels,
        label2id={v: k for k, v in labels.items()},
    )
    task, parent, _ = on_task(named, reviews, tmp_path / "run")
    assert parent.new == ()
    texts = torch.from_numpy(task.split("test").inputs[:4])
    own = load_checkpoint(named).with_length(12).build()
    with torch.no_grad():
        assert torch.allclose(parent.network(texts), own(texts), atol=1e-5)
    swapped = {0: "pos", 1: "neg"}
    other = text_checkpoint(
        tmp_path / "other",
        head="ForSequenceClassification",
        id2label=swapped,
        label2id={v: k for k, v in swapped.items()},
    )
    assert on_task(other, reviews, tmp_path / "run2")[1].new == ("head.weight", "head.bias")


def test_a_loadable_classifier_has_the_stored_pooler(bert, reviews, tmp_path):
    _, parent, _ = on_task(bert, reviews, tmp_path / "run", loadable=True)
    assert parent.architecture.style.pooling == "pooler"
    assert parent.new == ("head.weight", "head.bias")
    masked = text_checkpoint(tmp_path / "masked", head="ForMaskedLM")
    _, parent, _ = on_task(masked, reviews, tmp_path / "run2")
    # Masked language models have no pooler.
    assert parent.new == ("pooler.weight", "pooler.bias", "head.weight", "head.bias")


def test_texts_that_are_continued_are_whole_and_the_head_stays(tmp_path):
    folder = causal_checkpoint(tmp_path / "llama")
    (tmp_path / "tale.txt").write_text(tale(400))
    task = write_task(
        tmp_path / "tale.yaml",
        name="tale",
        kind="language_modelling",
        data="tale.txt",
        context_length=16,
        block_length=256,
    )
    made, parent, _ = on_task(folder, task, tmp_path / "run")
    workload = made.workload(4)
    assert workload.vocab_size == 97 == workload.n_classes and parent.new == ()
    tokens = torch.from_numpy(np.ascontiguousarray(made.split("test").inputs[:3]))
    own = load_checkpoint(folder).with_length(16).build()
    with torch.no_grad():
        assert torch.allclose(parent.network(tokens), own(tokens), atol=1e-5)


def test_pixels_are_scaled_by_the_checkpoints_preprocessor(tmp_path):
    folder = image_checkpoint(tmp_path / "vit")
    made, parent, _ = on_task(folder, shapes(tmp_path), tmp_path / "run")
    assert made.workload(1).input_shape == (3, 12, 12)
    about = made.about()
    assert about["mean"] == pytest.approx([127.5, 102, 76.5])
    assert about["deviation"] == pytest.approx([51, 63.75, 127.5])
    assert "head.weight" in parent.new and not any("layers" in name for name in parent.new)
    pixels = torch.from_numpy(np.array(made.split("test").inputs[:2]))
    with torch.no_grad():
        assert parent.network(pixels).shape == (2, 2)


def test_a_run_keeps_all_that_it_needs_or_nothing(bert, reviews, tmp_path):
    run = tmp_path / "run"
    with imported(bert, reviews, run) as parent:
        names = {path.name for path in parent.folder.iterdir()}
        assert names >= {"config.json", "model.safetensors", "tokenizer.json", "task.yaml"}
        content = yaml.safe_load((parent.folder / "task.yaml").read_text())
        assert content["data"].startswith("/") and content["tokenizer"] == "tokenizer.json"
    # No run began.
    assert not run.exists()
    run.mkdir()
    (run / ".parent.99").mkdir()
    with pytest.raises(KeyError), imported(bert, reviews, run):
        assert not (run / ".parent.99").exists()
        raise KeyError
    assert list(run.iterdir()) == []
    with imported(bert, reviews, run):
        (run / "run.json").write_text("{}")
    assert (run / "parent" / "task.yaml").is_file()


def bad(tmp_path, **options):
    return review_task(tmp_path / "data", **options)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p, b: (b, bad(p, sequence_length=65)), "sequence_length must be at most 64"),
        (lambda p, b: (b, "digits"), "task must be a task file"),
        (lambda p, b: (b, str(p / "none.yaml")), "none.yaml"),
        (lambda p, b: (b, shapes(p)), "task must have texts, which checkpoint bert reads"),
        (lambda p, b: (b, bad(p, kind="translation")), "kind must be text_classification"),
        (lambda p, b: (p / "nowhere", bad(p)), "nowhere"),
        (lambda p, b: (image_checkpoint(p / "vit"), bad(p)), "task must have images"),
        (
            lambda p, b: (
                b,
                write_task(p / "t.yaml", name="t", kind="language_modelling", data="t.txt"),
            ),
            "which does not continue texts",
        ),
        (lambda p, b: (without_tokenizer(p), bad(p)), "must have tokenizer.json"),
        (lambda p, b: (unpadded(p), bad(p)), "pad_token_id must be a token below 97"),
        (lambda p, b: (odd_preprocessor(p), shapes(p)), "image_mean must be 3 numbers"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(make, said, bert, tmp_path):
    checkpoint, task = make(tmp_path, bert)
    with (
        pytest.raises(ValueError, match=said) as caught,
        imported(checkpoint, task, tmp_path / "run"),
    ):
        raise AssertionError("it was imported")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def without_tokenizer(folder):
    made = text_checkpoint(folder / "bare")
    (made / "tokenizer.json").unlink()
    return made


def unpadded(folder):
    made = causal_checkpoint(folder / "llama")
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    return made


def odd_preprocessor(folder):
    made = image_checkpoint(folder / "vit")
    (made / "preprocessor_config.json").write_text('{"image_mean": 0.5}')
    return made


def test_sizes_default_to_what_the_checkpoint_reads(bert, tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text("name: t\nkind: text_classification\ndata: t.csv\n")
    described = task_of_parent(load_checkpoint(bert), str(path))
    assert described.content["sequence_length"] == 64
    assert any("at most 64 tokens" in note for note in described.notes)
