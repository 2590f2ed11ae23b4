"""``nas export --format gguf``: one file, verified, or nothing; and GGUF files as parents."""

import copy
import json
import resource
import shlex

import gguf
import pytest
import torch
from gguf_fakes import CONFIG, byte_pairs, folder_of, small_gguf
from pages import DOCS, blocks, lines_of

from nas.cli.commands.export_checkpoint import GGUF_TYPES
from nas.cli.main import main
from nas.exporting.checkpoint import parent_name
from nas.exporting.checkpoint_gguf import GGUF_TYPES as WRITTEN_TYPES
from nas.exporting.formats import stock, stock_worker
from search_spaces.pretrained import load_checkpoint
from search_spaces.pretrained.gguf.package import READABLE
from search_spaces.pretrained.gguf.pre_tokenizers import PRE_TOKENIZERS

TOKENS = byte_pairs(pre="smollm", **{"general.license": "apache-2.0"})
WITH_TOKENS = CONFIG | {"vocab_size": len(TOKENS["tokenizer.ggml.tokens"])}
EQUAL = {"class": "X", "version": "transformers 9", "missing": [], "output_difference": 0.0}


@pytest.fixture
def parent(tmp_path):
    return small_gguf(tmp_path / "parent.gguf", WITH_TOKENS, "Q4_1", **TOKENS)


@pytest.fixture
def verified(monkeypatch):
    """As if transformers were installed and gave equal outputs; returns the jobs."""
    jobs = []

    def run(job):
        jobs.append(job)
        return EQUAL | {"largest_output": 1.0}

    monkeypatch.setattr(stock, "run", run)
    monkeypatch.setattr(stock, "find_spec", lambda name: object())
    return jobs


def cut(parent, to, n_layers=1, **of_ffn):
    """Write the parent's architecture with its first layers; return the file."""
    data = load_checkpoint(parent).architecture.to_dict()
    data["layers"] = copy.deepcopy(data["layers"][:n_layers])
    for layer in data["layers"]:
        layer["ffn"] |= of_ffn
    to.write_text(json.dumps(data))
    return to


def words(parent, file, to, *more):
    head = ["export", "--from", str(parent), "--architecture", str(file), "--to", str(to)]
    return [*head, "--format", "gguf", *more]


def refused(capsys, *command, code=2):
    capsys.readouterr()
    assert main([*command, "--quiet"]) == code
    out, err = capsys.readouterr()
    (line,) = err.strip().splitlines()
    assert out == "" and line.startswith("nas export: ")
    return line


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_a_pruned_checkpoint_is_verified_by_transformers_in_a_fresh_process(
    kind, parent, tmp_path, capsys
):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    file, to = cut(parent, tmp_path / "cut.json"), tmp_path / "to"
    assert main(words(parent, file, to, "--gguf-type", kind, "--json", "--quiet")) == 0
    card = json.loads(capsys.readouterr().out)["card"]
    assert names(to) == ["README.md", "model.gguf"]
    figures = card["load_verification"]
    assert figures["stock_class"] == "LlamaForCausalLM" and figures["missing"] == []
    assert 0 < figures["output_difference"] < figures["output_tolerance"]
    changed = ["depth 2 to 1 (layers 0)", *(["weights stored as Q8_0"] if kind == "Q8_0" else [])]
    assert card["changed"] == changed and card["parent"]["license"] == "apache-2.0"
    readme = (to / "README.md").read_text()
    assert 'from_pretrained("this folder", gguf_file="model.gguf")' in readme
    assert "- gguf" in readme and "license: apache-2.0" in readme
    fields = gguf.GGUFReader(to / "model.gguf").fields
    found = {key: field.contents() for key, field in fields.items()}
    assert found["general.name"] == "parent, exported by JouleNAS"
    assert found["general.license"] == "apache-2.0"
    assert found["general.base_model.0.name"] == "parent"
    assert found["general.description"] == f"Exported by JouleNAS: {'; '.join(changed)}"
    for key, value in TOKENS.items():
        assert found[key] == value, key


def test_a_folder_is_written_as_a_file_with_what_it_has(tmp_path, capsys, verified):
    folder = folder_of(CONFIG, tmp_path / "folder")
    (folder / "LICENSE").write_text("yours")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    file, to = cut(folder, tmp_path / "cut.json", 2), tmp_path / "to"
    assert main(words(folder, file, to)) == 0
    shown = capsys.readouterr().out
    assert "changed  nothing" in shown and "the parent has no tokenizer, so the file" in shown
    assert names(to) == ["LICENSE", "README.md", "model.gguf"]
    assert load_checkpoint(to).license == "mit"
    (job,) = verified
    assert job["gguf_file"] == "model.gguf" and job["class"] == "AutoModelForCausalLM"


def test_a_file_is_written_as_a_folder(parent, tmp_path, capsys, verified):
    file, to = cut(parent, tmp_path / "cut.json", 2, d_ff=32), tmp_path / "to"
    command = words(parent, file, to, "--quiet")
    command[command.index("gguf")] = "huggingface"
    assert main(command) == 0
    expected = ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert names(to) == [*expected, "tokenizer_config.json"]
    before, after = load_checkpoint(parent), load_checkpoint(to)
    assert after.architecture.layers[0].ffn.d_ff == 32 and after.license == "apache-2.0"
    written = json.loads((to / "tokenizer.json").read_text())
    assert written == before.files["tokenizer.json"]
    attention = "layers.1.attention.q.weight"
    (ours,), (theirs,) = (
        [v for n, v in each.build().named_parameters() if n.endswith(attention)]
        for each in (before, after)
    )
    assert torch.equal(ours, theirs)


def test_a_file_is_written_with_a_module_of_its_own(parent, tmp_path, verified):
    file, to = cut(parent, tmp_path / "cut.json"), tmp_path / "to"
    command = words(parent, file, to, "--quiet")
    command[command.index("gguf")] = "python"
    assert main(command) == 0
    assert {"python", "model.safetensors", "tokenizer.json"} <= {*names(to)}


def test_a_file_of_the_hub_has_its_name_there(parent, tmp_path):
    folder = tmp_path / "models--owner--small" / "snapshots" / "3f2a"
    folder.mkdir(parents=True)
    parent.rename(folder / "m.gguf")
    assert parent_name(load_checkpoint(folder)) == "owner/small"
    assert parent_name(load_checkpoint(folder / "m.gguf")) == "owner/small"


@pytest.mark.usefixtures("verified", "measured_eagerly")
def test_names_of_files_do_not_control_the_terminal(parent, tmp_path, capsys):
    folder = tmp_path / "models--o\x1b[2J--n" / "snapshots" / "3f2a"
    folder.mkdir(parents=True)
    parent.rename(folder / "m\x1b[31m\n.gguf")
    file = cut(folder, tmp_path / "cut.json")
    measure = ["measure", "--from", str(folder), "--to", str(tmp_path / "m.jsonl")]
    measure += ["--rounds", "1", "--precision", "fp32", "--protocol", "quick", "--device", "cpu"]
    measure += ["--meter", "estimate", "--phase", "prefill"]
    for command in (words(folder, file, tmp_path / "to"), measure):
        assert main(command) == 0
        shown = capsys.readouterr()
        assert "\x1b" not in shown.out + shown.err
        assert r"m\x1b[31m\n.gguf" in shown.out + shown.err
    readme = (tmp_path / "to" / "README.md").read_text()
    assert "base_model: o\\x1b[2J/n" in readme


def test_the_tokenizer_of_a_folder_is_that_of_transformers(parent, tmp_path, verified):
    transformers = pytest.importorskip("transformers")
    file, to = cut(parent, tmp_path / "cut.json"), tmp_path / "to"
    command = words(parent, file, to, "--quiet")
    command[command.index("gguf")] = "huggingface"
    assert main(command) == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(to)
    tokens = TOKENS["tokenizer.ggml.tokens"]
    ids = tokenizer("hello the 12<|end|>")["input_ids"]
    assert [tokens[number] for number in ids] == [
        "hell", "o", "\u0120the", "\u0120", "1", "2", "<|end|>"
    ]  # fmt: skip
    assert tokenizer.eos_token == "<|end|>" and tokenizer.bos_token == "<|begin|>"


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["--gguf-type", "Q4_0"], "--gguf-type must be one of F32, F16, Q8_0, got Q4_0"),
        (["--gguf-type", "f16"], "--gguf-type must be one of F32, F16, Q8_0, got f16"),
        (["--format", "gguf"], "format must be one of huggingface, python, gguf with --from"),
    ],
)
def test_options_are_checked(more, part, parent, tmp_path, capsys):
    file = cut(parent, tmp_path / "cut.json")
    assert part in refused(capsys, *words(parent, file, tmp_path / "to", *more))
    command = words(parent, file, tmp_path / "to", "--gguf-type", "F16")
    command[command.index("gguf")] = "python"
    assert "--gguf-type requires --format gguf, got --format python" in refused(capsys, *command)
    run = ["export", "run", "--to", str(tmp_path / "to"), "--gguf-type", "F16"]
    assert "--gguf-type requires --from DIR" in refused(capsys, *run)


def test_what_gguf_does_not_support_is_refused_before_anything_is_written(
    parent, tmp_path, capsys
):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    file = cut(parent, tmp_path / "cut.json", 2)
    data = json.loads(file.read_text())
    data["layers"][1]["ffn"]["d_ff"] = 32
    file.write_text(json.dumps(data))
    line = refused(capsys, *words(parent, file, tmp_path / "to"))
    assert line.startswith(
        "nas export: format gguf does not support this network: layers[1].ffn.d_ff is 32"
    )
    file = cut(parent, tmp_path / "cut.json", 1, d_ff=40)
    line = refused(capsys, *words(parent, file, tmp_path / "to", "--gguf-type", "Q8_0"))
    assert "layers[0].ffn.d_ff is 40, and must be a multiple of 32 with Q8_0" in line
    assert names(tmp_path) == ["cut.json", "parent.gguf"]


@pytest.mark.parametrize("absent", ["transformers", "accelerate"])
def test_what_is_not_installed_is_named(absent, parent, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stock, "find_spec", lambda name: None if name == absent else object())
    file = cut(parent, tmp_path / "cut.json")
    line = refused(capsys, *words(parent, file, tmp_path / "to"))
    assert f"is verified by {absent}, which is not installed: pip install 'joulenas[gguf]'" in line
    assert names(tmp_path) == ["cut.json", "parent.gguf"]


def test_outputs_that_differ_leave_nothing(parent, tmp_path, capsys, monkeypatch):
    wrong = EQUAL | {"output_difference": 0.5, "largest_output": 1.0}
    monkeypatch.setattr(stock, "run", lambda job: wrong)
    monkeypatch.setattr(stock, "find_spec", lambda name: object())
    file = cut(parent, tmp_path / "cut.json")
    line = refused(capsys, *words(parent, file, tmp_path / "to"), code=1)
    assert "outputs of X (transformers 9) differ by 0.5" in line
    assert names(tmp_path) == ["cut.json", "parent.gguf"]


def test_a_parameter_that_is_read_otherwise_leaves_nothing(
    parent, tmp_path, capsys, monkeypatch, verified
):
    from nas.exporting import checkpoint_gguf

    monkeypatch.setattr(checkpoint_gguf, "rounded", lambda value, kind: value.detach() + 1)
    file = cut(parent, tmp_path / "cut.json")
    line = refused(capsys, *words(parent, file, tmp_path / "to"), code=1)
    assert "differs in the reloaded file" in line
    assert names(tmp_path) == ["cut.json", "parent.gguf"] and not verified


def test_types_on_the_command_line_are_those_that_are_written():
    assert GGUF_TYPES == WRITTEN_TYPES
    export, pretrained = (DOCS / f"{name}.md" for name in ("export", "pretrained"))
    assert "F32 (default), F16 or Q8_0" in export.read_text()
    rows = {row.split(" | ")[0].strip("| "): row for row in pretrained.read_text().splitlines()}
    assert ", ".join(READABLE) in rows["types"]
    for name in PRE_TOKENIZERS:
        assert name in rows["tokenizers"]


def test_the_page_shows_what_runs_and_is_printed(tmp_path, capsys, monkeypatch):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    page = DOCS / "export.md"
    shown = next(text for text in blocks(page, "text") if "smollm2-l20" in text)
    (line,) = (line for line in lines_of(page) if "--format gguf" in line)
    monkeypatch.chdir(tmp_path)
    # It has the depth of the real checkpoint.
    (tmp_path / "smollm2-135m-instruct").mkdir()
    config = WITH_TOKENS | {"num_hidden_layers": 30, "tie_word_embeddings": True}
    small_gguf(tmp_path / "smollm2-135m-instruct" / "m.gguf", config, "Q4_1", **TOKENS)
    cut(tmp_path / "smollm2-135m-instruct", tmp_path / "pruned.json", 20)
    monkeypatch.setattr(stock, "run", stock_worker.do)
    capsys.readouterr()
    assert main(shlex.split(line)[1:]) == 0
    printed = capsys.readouterr().out.splitlines()
    titles = [[line[:10] for line in text] for text in (printed, shown.splitlines())]
    assert titles[0][1:] == titles[1][1:] and printed[0].startswith("smollm2-l20: ")
    assert printed[2] == shown.splitlines()[2]


@pytest.mark.usefixtures("measured_eagerly")
def test_a_file_is_measured_as_the_page_shows(tmp_path, capsys, monkeypatch):
    (line,) = (line for line in lines_of(DOCS / "pretrained.md") if "smollm2.jsonl" in line)
    folder = tmp_path / "build" / "checkpoints" / "smollm2-135m-instruct"
    folder.mkdir(parents=True)
    small_gguf(folder / "m.gguf", WITH_TOKENS, "Q8_0", **TOKENS)
    monkeypatch.chdir(tmp_path)
    more = ["--rounds", "1", "--precision", "fp32", "--protocol", "quick", "--meter", "estimate"]
    assert main([*shlex.split(line)[1:], *more, "--device", "cpu"]) == 0
    assert "checkpoint m.gguf (llama)" in capsys.readouterr().out
    (record,) = (tmp_path / "smollm2.jsonl").read_text().splitlines()
    assert json.loads(record)["origin"] == "checkpoint m.gguf (llama)"


def test_a_full_disk_is_one_line(parent, tmp_path, capsys, verified):
    file, to = cut(parent, tmp_path / "cut.json"), tmp_path / "to"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        code = main(words(parent, file, to, "--quiet"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    lines = capsys.readouterr().err.splitlines()
    assert code == 2 and lines[-1].startswith("nas export: model.gguf could not be written")
    assert names(tmp_path) == ["cut.json", "parent.gguf"]
