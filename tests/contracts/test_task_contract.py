"""What every task must keep, whatever it is about. A task joins by one function in ``MAKERS``."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from media_fakes import task_file, write_pictures, write_scenes, write_tones
from parent_fakes import embedding_task, sentence_checkpoint, write_text_pairs
from run_fakes import check_schema
from text_fakes import (
    reviews,
    sentences,
    tale,
    write_squad,
    write_table,
    write_task,
)

from experiments.benchmarks.training.drawn_shapes import write_shapes
from experiments.made_data import documents, write_melodies
from nas.tasks.base import SPLITS
from nas.tasks.base.artifact_files import artifact_files_of
from nas.tasks.base.checks import check_data
from nas.tasks.base.metric import METRICS
from nas.tasks.registry import get_task
from nas.training.config import TrainingConfig
from nas.training.evaluate import evaluate
from nas.training.loop import train
from nas.training.objective import learnt_outputs, objective_of
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    DecoderLayerSpec,
    DecoderSpec,
    FfnSpec,
    LayerSpec,
)
from search_spaces.models.build import build_network

BATCH = 16


def digits(folder):
    """Comes with the project; reads nothing of ``folder``."""
    return "digits"


def text_lines(folder):
    """Two words that mean two classes, among others that mean nothing."""
    rng = np.random.default_rng(0)
    for name, n in (("train", 96), ("validation", 40), ("test", 40)):
        lines = []
        for i in range(n):
            words = [f"w{j}" for j in rng.integers(0, 12, 5)] + [("good", "bad")[i % 2], name]
            rng.shuffle(words)
            lines.append(f"{('pos', 'neg')[i % 2]} {' '.join(words)} {i}\n")
        (folder / f"{name}.txt").write_text("".join(lines))
    path = folder / "task.yaml"
    path.write_text(
        "name: words\ntrain: train.txt\nvalidation: validation.txt\ntest: test.txt\n"
        "sequence_length: 9\n"
    )
    return str(path)


def table(folder):
    """The same as a table of one file, cut into bytes and pairs of them."""
    write_table(folder / "all.csv", reviews(200))
    options = {"data": "all.csv", "tokens": "bpe", "max_vocabulary": 300, "sequence_length": 16}
    return write_task(folder / "task.yaml", **options)


def images(folder):
    """Stripes across, down and aslant."""
    write_pictures(folder / "all", 40)
    return task_file(folder / "task.yaml", name="stripes", kind="images", data="all")


def speech(folder):
    """Tones of three heights."""
    write_tones(folder / "all", 40)
    options = {"sample_rate": 8000, "duration_s": 0.4, "n_mels": 20, "hop_ms": 20}
    return task_file(folder / "task.yaml", name="tones", kind="speech", data="all", **options)


def segmentation(folder):
    """Rectangles of two colours on dark ground, and which pixels they cover."""
    write_scenes(folder, 60)
    data = {"images": "pictures", "masks": "masks"}
    options = {"kind": "segmentation", "data": data, "classes": ["ground", "bright", "red"]}
    return task_file(folder / "task.yaml", name="scenes", **options)


def detection(folder):
    """Shapes of a colour for each class, and their boxes."""
    write_shapes(folder, 80, side=24, most=2, sizes=(8, 14), own_colours=True)
    data = {"images": "pictures", "annotations": "boxes.json"}
    return task_file(folder / "task.yaml", name="shapes", kind="detection", data=data)


def question_answering(folder):
    """Who, where or when, in sentences that say all three in any order."""
    write_squad(folder / "notes.json", 80)
    options = {"kind": "question_answering", "data": "notes.json", "sequence_length": 24}
    return task_file(folder / "task.yaml", name="notes", **options)


def hf(folder):
    """The reviews again, as Hugging Face's library keeps a dataset on disk."""
    datasets = pytest.importorskip("datasets")
    texts, labels = zip(*reviews(200), strict=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder / "cache"))
        table = datasets.Dataset.from_dict({"text": list(texts), "label": list(labels)})
        datasets.DatasetDict({"train": table}).save_to_disk(folder / "saved")
    options = {"kind": "hf", "dataset": "saved", "sequence_length": 12}
    return task_file(folder / "task.yaml", name="saved-reviews", **options)


def language(folder):
    """Lines of words that follow from each other, one file for all splits."""
    (folder / "tale.txt").write_text(tale(1200))
    return task_file(
        folder / "task.yaml",
        name="tale",
        kind="language_modelling",
        data="tale.txt",
        context_length=24,
        block_length=256,
        phase="generate",
    )


def translation(folder):
    """A made-up language, its words and their order, in one table."""
    table = write_table(folder / "all.tsv", sentences(200), ("source", "target"))
    options = {"data": table.name, "sequence_length": 12, "target_length": 12}
    return task_file(
        folder / "task.yaml", name="tongue", kind="translation", max_vocabulary=290, **options
    )


def summarisation(folder):
    """Reports of matches, whose summaries are three words of them."""
    pytest.importorskip("rouge_score")
    write_table(folder / "all.jsonl", documents(200), ("source", "target"))
    options = {"data": "all.jsonl", "sequence_length": 96, "target_length": 12}
    return task_file(
        folder / "task.yaml", name="reports", kind="summarisation", max_vocabulary=400, **options
    )


def transcription(folder):
    """Sung notes, and their names."""
    pytest.importorskip("jiwer")
    write_melodies(folder, 150)
    options = {"sample_rate": 8000, "duration_s": 2.0, "n_mels": 20, "hop_ms": 20, "window_ms": 32}
    options |= {"kind": "transcription", "data": "melodies.jsonl"}
    return task_file(folder / "task.yaml", name="melodies", **options)


def embeddings(folder):
    """Reviews, whose vectors a small checkpoint of random weights gives; pairs with a score."""
    pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_attention_heads": 2}
    sentence_checkpoint(folder / "checkpoint", **sizes)
    options = {"checkpoint": "checkpoint", "tokenizer": "checkpoint/tokenizer.json"}
    options |= {"padding_token": 0, "vocab_size": 97, "prefix": "good "}
    for split, seed in (("validation", 5), ("test", 6)):
        options[f"{split}_pairs"] = write_text_pairs(folder / f"{split}.csv", 30, seed).name
    return embedding_task(folder, **options)


# Each writes what it needs into a folder and returns the task's name.
MAKERS = [
    digits,
    text_lines,
    table,
    images,
    speech,
    segmentation,
    detection,
    question_answering,
    hf,
    language,
    translation,
    summarisation,
    transcription,
    embeddings,
]


@pytest.fixture(scope="module", params=MAKERS, ids=lambda maker: maker.__name__)
def name(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # Arrays that are kept are those of this test.
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield request.param(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def task(name):
    return get_task(name)


@pytest.fixture(scope="module")
def workload(task):
    return task.workload(BATCH)


def smallest_of(workload):
    """A small network that reads ``workload``."""
    patch = 1
    if workload.is_image:
        _, height, width = workload.input_shape
        height = width if workload.is_transcription else height
        patch = next(p for p in (4, 8, 2, 1) if height % p == 0 and width % p == 0)
    attention, ffn = AttentionSpec(2, 2, 8), FfnSpec(32)
    decoder = None
    if workload.is_sequence_to_sequence:
        decoder = DecoderSpec(16, (DecoderLayerSpec(attention, attention, ffn),))
    return Architecture(16, (LayerSpec(attention, ffn),), patch, decoder=decoder)


def batch_of(split, n=BATCH):
    return torch.from_numpy(np.asarray(split.inputs[:n]))


def test_the_workload_names_the_task_and_the_batch(task, workload):
    assert workload.name == task.name and workload.batch_size == BATCH
    assert task.workload(BATCH) == workload


def test_splits_fit_the_workload_and_are_the_same_again(name, task, workload):
    again = get_task(name)
    for split_name in SPLITS:
        split, other = task.split(split_name), again.split(split_name)
        assert split.inputs.shape[1:] == workload.input_shape
        assert split.inputs.dtype == (np.float32 if workload.is_image else np.int64)
        assert np.array_equal(split.inputs, other.inputs)
        assert np.array_equal(split.targets, other.targets)
        assert np.isfinite(split.inputs).all()
        if not workload.is_image:
            assert split.inputs.min() >= 0 and split.inputs.max() < workload.vocab_size


def test_no_sample_is_in_two_splits(task):
    seen = {
        name: {
            (i.tobytes(), t.tobytes()) for i, t in zip(split.inputs, split.targets, strict=True)
        }
        for name, split in ((n, task.split(n)) for n in SPLITS)
    }
    for one, two in itertools.combinations(SPLITS, 2):
        assert not seen[one] & seen[two]


def test_its_data_can_be_checked_and_its_labels_go_with_it(task, workload):
    found = check_data(task)
    check_schema(found.to_dict(), "check_data")
    assert not found.errors and not any("leak" in line for line in found.warnings)
    for name in SPLITS:
        assert found.splits[name]["samples"] == len(task.split(name))
    carried = artifact_files_of(task)
    if "labels.json" in carried:
        assert len(json.loads(carried["labels.json"])["labels"]) == workload.n_classes


def test_what_goes_with_it_says_how_inputs_are_made(task, workload):
    """Whoever has the artifact alone can give it inputs."""
    carried, inputs = artifact_files_of(task), task.split("train").inputs
    if workload.is_image:
        made = json.loads(carried["preprocessing.json"])
        shape = [-1 if i == made["axis"] + 1 else 1 for i in range(inputs.ndim)]
        mean, deviation = (np.reshape(made[k], shape) for k in ("mean", "deviation"))
        assert mean.size == inputs.shape[made["axis"] + 1]
        values = inputs.astype(np.float64) * deviation + mean
        if made["of"]["what"] == "recordings":
            assert made["of"]["front_end"]["n_mels"] == mean.size
        else:
            # Of pixels, which are whole numbers only if these are the right mean and deviation.
            assert np.abs(values - values.round()).max() < 1e-3 and values.max() > 10
            assert values.min() > -0.5 and deviation.min() > 1.5
    elif workload.kind == "question_answering":
        made = json.loads(carried["vocabulary.json"])
        assert made["first"] + len(made["words"]) == workload.vocab_size
    else:
        assert "tokenizer.json" in carried


def test_there_is_no_other_split(task):
    with pytest.raises(ValueError, match="split must be one of train, validation, test"):
        task.split("dev")


def test_its_metric_is_known_and_reads_back(task):
    metric = task.metric
    assert METRICS[metric.key] is metric
    for share in (0.125, 0.5, 0.97):
        assert metric.share(metric.score(share)) == pytest.approx(share)


def test_an_untrained_network_is_judged_as_a_share_with_an_error(task, workload):
    model = build_network(smallest_of(workload), workload, generator_seed=0).eval()
    split = task.split("validation")
    found = evaluate(model, split, batch_size=BATCH, objective=objective_of(task, workload))
    assert 0 <= found.value <= 1 and 0 < found.standard_error < 0.5
    assert found.n_samples == len(split) == len(found.scores)
    # A last batch that is filled up changes nothing.
    other = evaluate(model, split, batch_size=7, objective=objective_of(task, workload))
    assert other.value == pytest.approx(found.value, abs=1e-6)


def test_a_few_steps_lower_the_loss(task, workload):
    objective = objective_of(task, workload)
    split = task.split("train")
    model = build_network(smallest_of(workload), workload, generator_seed=0)
    targets = torch.from_numpy(np.asarray(split.targets[:64]))

    def loss():
        with torch.no_grad():
            outputs = learnt_outputs(objective, model.eval(), batch_of(split, 64), targets)
            return float(objective.loss(outputs, targets, 0.0))

    before = loss()
    config = TrainingConfig(epochs=max(3, 600 // len(split)), batch_size=BATCH)
    train(model, split, config, seed=0, objective=objective)
    after = loss()
    assert math.isfinite(before) and after < before
