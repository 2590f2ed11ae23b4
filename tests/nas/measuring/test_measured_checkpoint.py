"""The joules of a checkpoint: ``nas measure --from``, and what it chooses and refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
from encoder_fakes import encoder
from gguf_fakes import CONFIG, byte_pairs, small_gguf
from parent_fakes import WORDS, embedding_task, sentence_checkpoint
from pretrained_fakes import causal, saved
from record_fakes import made_record
from text_fakes import tale

import nas
from nas.cli.main import main
from nas.measuring import memory
from nas.measuring.free_memory import available_bytes
from nas.measuring.inputs import inputs_of
from nas.measuring.measure import plan_measurement
from nas.measuring.subject import Sizes, subject_of
from nas.tasks.registry import get_task
from predictors.campaign import rounds as rounds_module
from predictors.campaign.active import Bench
from predictors.measurement.protocol import get_protocol
from predictors.measurement.records import read_records
from search_spaces.architecture import Architecture
from search_spaces.compression.realness import RealnessReport, Row, Shape
from search_spaces.pretrained import load_checkpoint
from search_spaces.workload import Workload


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama of two layers and a context of 256 tokens."""
    network = causal("llama", num_hidden_layers=2, max_position_embeddings=256)
    return saved(network, tmp_path_factory.mktemp("checkpoints") / "small-llama")


@pytest.fixture
def probed(monkeypatch):
    """A device on which bf16 and int8 are real, int8wo gains nothing and fp8 is missing."""
    statuses = {"fp32": "real", "bf16": "real", "int8": "real", "int8wo": "harmful"}

    def probe(device, *, choices, **others):
        names = dict.fromkeys(("fp32", *choices))
        rows = [
            Row(name, Shape(64, 512), statuses.get(name, "absent"), reason=f"{name} is slow")
            for name in names
        ]
        return RealnessReport(device, "Fake", {}, tuple(rows))

    monkeypatch.setattr("search_spaces.compression.probing.probe", probe)


@pytest.fixture
def at_once(monkeypatch):
    """Measure at once: bf16 takes half the joules of fp32, int8 fails. Returns the jobs."""
    from predictors.measurement.process import MeasureError

    jobs = []

    def measure(group, protocol, device, **others):
        jobs.extend(group)
        results = []
        for job in group:
            architecture = Architecture.from_dict(job["architecture"])
            workload = Workload.from_dict(job["workload"])
            precision = architecture.blocks[0].compression.precision
            if precision == "int8":
                results.append(MeasureError("no kernel"))
                continue
            energy_j = 1e-3 if precision == "bf16" else 2e-3
            results.append(made_record(architecture, workload, energy_j, origin=job["origin"]))
        return results

    monkeypatch.setattr(rounds_module, "measure_side_by_side", measure)
    return jobs


def command(folder, tmp_path, *options):
    words = ["measure", "--from", str(folder), "--device", "cpu", "--meter", "estimate"]
    return [*words, "--to", str(tmp_path / "r.jsonl"), *options]


def test_every_real_precision_is_measured_in_both_phases(
    folder, tmp_path, probed, at_once, capsys
):
    assert main(command(folder, tmp_path, "--json")) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    rows = {(row["precision"], row["phase"]): row for row in found["rows"]}
    assert list(rows) == [(p, f) for f in ("prefill", "generate") for p in ("fp32", "bf16")]
    assert rows["bf16", "prefill"]["ratio"]["mean"] == pytest.approx(0.5)
    assert rows["fp32", "prefill"]["ratio"] is None
    assert rows["fp32", "generate"]["workload"] == "small-llama@128/generate/b1"
    assert rows["bf16", "prefill"]["weight_bytes"] < rows["fp32", "prefill"]["weight_bytes"]
    assert found["failed"] == {"int8 prefill": "no kernel", "int8 generate": "no kernel"}
    assert found["missing"] == 0 and "int8wo is slow" in " ".join(found["left_out"])
    assert "note: inputs have 128 of at most 256 tokens" in err
    assert "note: batches have 1 sample" in err
    # The weights are the checkpoint's, and records say where they came from.
    assert {job["checkpoint"] for job in at_once} == {str(folder)}
    records = read_records(tmp_path / "r.jsonl").records
    assert {record.origin for record in records} == {"checkpoint small-llama (llama)"}
    assert len(records) == 12
    n = len(at_once)
    assert main(command(folder, tmp_path, "--quiet")) == 1
    out, err = capsys.readouterr()
    assert len(at_once) == n and err == ""
    assert "failed: int8 prefill: no kernel" in out and "0.5 [0.5, 0.5]" in out


def test_a_named_precision_that_gains_nothing_is_measured_and_a_missing_one_is_said(
    folder, tmp_path, probed, at_once, capsys
):
    names = ["--precision", "int8wo", "--precision", "fp8", "--phase", "generate"]
    assert main(command(folder, tmp_path, *names, "--json")) == 0
    out, err = capsys.readouterr()
    (row,) = json.loads(out)["rows"]
    assert row["precision"] == "int8wo" and row["ratio"] is None
    assert "note: fp8 is left out on cpu" in err


REFUSED = [
    (["--precision", "fp8"], ["fp8 is left out on cpu"]),
    (["--precision", "bf61"], ["bf61", "did you mean 'bf16'"]),
    (["--phase", "gen"], ["phase", "prefill, generate", "'gen'"]),
    (["--sequence-length", "257"], ["sequence_length", "256", "257"]),
    (["--image-size", "8"], ["image size", "left out for texts"]),
    (["--sequence-length", "0"], ["sequence_length", "> 0", "0"]),
    (["--rounds", "0"], ["rounds", "> 0"]),
    (["--batch-size", "auto"], ["--from", "auto"]),
    (["--space", "digits-tiny", "--sample", "3"], ["--from DIR and --space"]),
    (["--compare", "a.json", "b.json"], ["--from DIR and --compare"]),
    (["--sample", "3"], ["--space", "--sample"]),
    (["--task", "digits"], ["task digits", "images"]),
    (["--task", "digits", "--workload", "w.json"], ["--task", "--workload"]),
    (["--workload", "{workload}"], ["workload", "vocab_size", "97", "98"]),
]


@pytest.mark.parametrize(("options", "said"), REFUSED, ids=lambda value: " ".join(value))
def test_what_does_not_fit_is_refused_in_one_line(
    options, said, folder, tmp_path, probed, at_once, capsys
):
    own = load_checkpoint(folder).workload
    other = replace(own, vocab_size=98, n_classes=98).to_dict()
    (tmp_path / "w.json").write_text(json.dumps(other | {"n_classes": 97}))
    words = [word.format(workload=tmp_path / "w.json") for word in options]
    assert main(command(folder, tmp_path, *words)) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.strip().splitlines()) == 1
    assert all(word in err for word in said), err
    assert at_once == [] and not (tmp_path / "r.jsonl").exists()


@pytest.mark.parametrize(
    "option", ["--sequence-length=8", "--image-size=8", "--precision=bf16", "--rounds=2"]
)
def test_options_of_checkpoints_are_refused_without_one(option, tmp_path, capsys):
    assert main(["measure", str(tmp_path / "a.json"), option]) == 2
    assert f"{option.partition('=')[0]} requires --from" in capsys.readouterr().err


def test_a_checkpoint_that_does_not_fit_into_memory_is_refused_beforehand(
    folder, tmp_path, probed, at_once, capsys, monkeypatch
):
    monkeypatch.setattr(memory, "available_bytes", lambda: 9 * 10**8)
    assert main(command(folder, tmp_path)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "in 2 forms side by side needs 1 GB (estimate), and 900 MB are free" in line
    assert "--precision" in line
    assert at_once == []
    # Two of three fit: each of the others is measured beside the baseline.
    monkeypatch.setattr(memory, "available_bytes", lambda: 12 * 10**8)
    assert main(command(folder, tmp_path, "--rounds", "1")) == 1
    assert "note: memory holds 2 of 3 forms: they are measured in parts" in capsys.readouterr().err
    precisions = [job["architecture"]["layers"][0]["ffn"]["precision"] for job in at_once]
    assert precisions == ["fp32", "bf16", "fp32", "int8"] * 2
    assert main(command(folder, tmp_path, "--precision", "fp32")) == 0


def test_free_memory_is_what_the_container_leaves(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 16000 kB\nMemAvailable:    8000 kB\n")
    assert available_bytes(tmp_path / "meminfo", tmp_path / "none") == 8_192_000
    (tmp_path / "memory.max").write_text("4000000\n")
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.stat").write_text("active_file 5\ninactive_file 500000\n")
    assert available_bytes(tmp_path / "meminfo", tmp_path) == 1_500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes(tmp_path / "meminfo", tmp_path) == 8_192_000
    assert available_bytes(tmp_path / "none", tmp_path / "none") is None


def test_a_workload_file_sets_name_length_and_batch(folder, tmp_path):
    checkpoint = load_checkpoint(folder)
    own = replace(checkpoint.workload, name="mine", input_shape=(24,), batch_size=3)
    (tmp_path / "w.json").write_text(json.dumps(own.to_dict()))
    subject = subject_of(checkpoint, Sizes(workload=tmp_path / "w.json", phases=("generate",)))
    assert [w.key for w in subject.workloads] == ["mine@24/generate/b3"]
    assert subject.checkpoint.workload.input_shape == (24,) and subject.notes == ()


def test_every_block_gets_the_precision(folder):
    architecture = load_checkpoint(folder).architecture.in_precision("int8")
    assert {block.compression.precision for block in architecture.blocks} == {"int8"}
    assert architecture.in_precision("fp32") == load_checkpoint(folder).architecture


@pytest.fixture
def plays(tmp_path, monkeypatch):
    """A language modelling task on bytes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "plays.txt").write_text(tale(4000))
    (tmp_path / "plays.yaml").write_text(
        "name: plays\nkind: language_modelling\ndata: plays.txt\ncontext_length: 32\n"
        "tokens: byte\n"
    )
    return get_task(str(tmp_path / "plays.yaml"))


def write_tokenizer(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[PAD]": 0, "[UNK]": 1, "ant": 2, "bee": 3, "cat": 4, "dog": 5}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def test_inputs_of_a_task_are_cut_by_the_checkpoints_tokenizer(plays, tmp_path):
    folder = saved(causal("llama"), tmp_path / "with-tokenizer")
    sizes = Sizes(task=plays, batch_size=2, sequence_length=12)
    random = inputs_of(plays, subject_of(load_checkpoint(folder), sizes))
    assert random.batch is None and "no tokenizer.json" in random.note
    write_tokenizer(folder)
    subject = subject_of(load_checkpoint(folder), sizes)
    assert subject.workloads[0].key == "with-tokenizer-plays@12/prefill/b2"
    batch = inputs_of(plays, subject).batch
    assert batch.shape == (2, 12) and batch.dtype == np.int64
    # Words of the text, not the task's own bytes.
    assert {1, 2, 3, 4} <= set(batch.ravel().tolist()) <= {1, 2, 3, 4, 5}


def test_texts_without_labels_are_inputs_after_their_prefix(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    checkpoint = load_checkpoint(sentence_checkpoint(tmp_path / "minilm"))
    task = get_task(embedding_task(tmp_path, prefix="good film "))
    sizes = Sizes(task=task, batch_size=4, sequence_length=12)
    subject = subject_of(checkpoint, sizes)
    assert subject.workloads[0].key == "minilm-texts@12/b4"
    batch = inputs_of(task, subject).batch
    prefix = [WORDS.index(word) for word in ("[CLS]", "good", "film")]
    assert (batch[:, :3] == prefix).all() and (batch[:, 3] > 3).all()


def test_inputs_are_cut_by_the_tokenizer_inside_a_gguf_file(plays, tmp_path):
    tokens = byte_pairs(("e a", "ea t", "eat s"))
    config = CONFIG | {"vocab_size": len(tokens["tokenizer.ggml.tokens"])}
    checkpoint = load_checkpoint(small_gguf(tmp_path / "m.gguf", config, "Q8_0", **tokens))
    sizes = Sizes(task=plays, batch_size=2, sequence_length=32)
    batch = inputs_of(plays, subject_of(checkpoint, sizes)).batch
    assert batch.shape == (2, 32)
    texts = tokens["tokenizer.ggml.tokens"]
    # Merged tokens of the text, not the task's own bytes.
    assert "eats" in {texts[number] for number in batch.ravel()}


def test_inputs_reach_the_job(plays, tmp_path, probed, at_once):
    folder = saved(causal("llama"), tmp_path / "with-tokenizer")
    write_tokenizer(folder)
    done = nas.measure(
        folder,
        tmp_path / "r.jsonl",
        task=plays,
        precisions=["fp32"],
        phases=["prefill"],
        rounds=1,
        device="cpu",
        meter="estimate",
    )
    # The longest input of this checkpoint is 64 tokens.
    assert [row.workload for row in done.rows] == ["with-tokenizer-plays@64/prefill/b1"]
    assert all(job["inputs"].endswith("inputs.npy") for job in at_once)


def test_python_refuses_what_it_does_not_know(folder, tmp_path):
    with pytest.raises(ValueError, match="options must be of .*precisions.*, got batch"):
        nas.measure(folder, tmp_path / "r.jsonl", batch=3)
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        nas.measure(folder, tmp_path / "r.jsonl", batch_size=0)


def test_records_must_go_into_a_file(folder, tmp_path, probed):
    bench = Bench("cpu", "estimate", "cpu time", "Fake", get_protocol("quick"))
    with pytest.raises(ValueError, match="records must be a file in a writable folder"):
        plan_measurement(load_checkpoint(folder), bench, tmp_path, sizes=Sizes())


@pytest.mark.usefixtures("measured_eagerly")
def test_the_weights_that_run_are_the_checkpoints(folder, tmp_path, capsys):
    options = ["--precision", "fp32", "--phase", "prefill", "--rounds", "1"]
    assert main(command(folder, tmp_path, *options, "--json", "--quiet")) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["unit"] == "prefill token" and row["energy"]["low"] > 0
    (record,) = read_records(tmp_path / "r.jsonl").records
    assert (
        record.reading.is_estimate and record.architecture == load_checkpoint(folder).architecture
    )
    # A folder whose weights went away fails: they are read, and not made up.
    weights = folder / "model.safetensors"
    text = weights.read_bytes()
    weights.write_bytes(text[:-64])
    try:
        assert main(command(folder, tmp_path, *options, "--seed", "1")) == 2
    finally:
        weights.write_bytes(text)
    assert "model.safetensors" in capsys.readouterr().err


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A ViT with positions for images of 12 x 12 pixels in patches of 4."""
    return saved(encoder("vit", "Model"), tmp_path_factory.mktemp("images") / "small-vit")


@pytest.mark.usefixtures("measured_eagerly")
def test_images_of_another_size_are_measured(images, tmp_path, capsys):
    options = ["--precision", "fp32", "--rounds", "1", "--image-size", "8x16"]
    assert main(command(images, tmp_path, *options, "--quiet")) == 0
    (record,) = read_records(tmp_path / "r.jsonl").records
    assert record.workload.input_shape == (3, 8, 16)


def test_images_that_do_not_fit_into_memory_are_refused_with_their_option(
    images, tmp_path, capsys
):
    options = ["--precision", "fp32", "--image-size", "99999996", "--quiet"]
    assert main(command(images, tmp_path, *options)) == 2
    line = capsys.readouterr().err.strip()
    assert "in 1 form needs" in line and "\n" not in line
    assert line.endswith("free: lower --batch-size or --image-size")


@pytest.mark.parametrize("size", ["8x", "0", "8x8x8", "-8", "x", "8,8"])
def test_what_is_no_size_is_refused_with_an_example(size, images, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(command(images, tmp_path, f"--image-size={size}"))
    assert "such as 224x160" in capsys.readouterr().err.strip().splitlines()[-1]


def test_images_of_a_task_have_the_size_of_the_option(images, tmp_path):
    digits = get_task("digits")
    with pytest.raises(ValueError, match=r"--image-size changes height and width"):
        subject_of(load_checkpoint(images), Sizes(task=digits))


def test_runtimes_have_rows_beside_torchs_fp32(folder, probed, at_once, monkeypatch, tmp_path):
    def probe(runtime, shapes, choices, **others):
        assert runtime.name == "onnxruntime" and set(choices) <= {"fp32", "int8"}
        rows = tuple(Row(name, shapes[0], "real") for name in choices)
        return RealnessReport("cpu", "Fake", {}, rows)

    monkeypatch.setattr("search_spaces.runtimes.realness.probe_runtime", probe)
    path = tmp_path / "r.jsonl"
    how = {"rounds": 1, "phases": ["prefill"], "meter": "estimate", "device": "cpu"}
    found = nas.measure(folder, path, runtimes=["onnxruntime"], **how)
    assert [(row.runtime, row.precision) for row in found.rows] == [
        ("torch", "fp32"),
        ("onnxruntime", "fp32"),
    ]
    assert [job["runtime"] for job in at_once] == ["torch", "onnxruntime", "onnxruntime"]
    assert found.failed == {"onnxruntime int8 prefill": "no kernel"}
    # The size of a converted file is not that of torch's weights.
    assert [row.weight_bytes is None for row in found.rows] == [False, True]
    named = nas.measure(folder, path, runtimes=["onnxruntime"], precisions=["bf16", "fp32"], **how)
    (line,) = named.left_out
    assert line == ("bf16 is left out on onnxruntime: onnxruntime runs fp32, int8, not bf16")
    with pytest.raises(ValueError, match="runtime must be one of torch, torch-eager"):
        nas.measure(folder, path, runtimes=["tensorflow"], **how)
