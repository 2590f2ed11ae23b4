"""``nas export --from``: a checkpoint's folder out, whole and verified, or nothing."""

import copy
import json
import os
import resource
import shlex
import signal
import subprocess
import sys

import pytest
import torch
from encoder_fakes import encoder
from pages import DOCS, blocks, lines_of, output_of
from pretrained_fakes import saved, write_llama
from safetensors.torch import load_file

from nas.cli.main import main
from nas.exporting.checkpoint import parent_name
from nas.exporting.formats import stock, stock_worker
from search_spaces.pretrained import load_checkpoint


@pytest.fixture
def parent(tmp_path):
    folder = write_llama(tmp_path / "parent")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


def architecture(parent, to, *, layers=((4, 2, 8),), style=True, **attention):
    """Write the parent's architecture with ``layers`` of (heads, key-value heads, FFN)."""
    data = load_checkpoint(parent).architecture.to_dict()
    first = data["layers"][0]
    data["layers"] = []
    for heads, kv_heads, d_ff in layers:
        layer = copy.deepcopy(first)
        layer["attention"] |= {"n_heads": heads, "n_kv_heads": kv_heads, **attention}
        layer["ffn"]["d_ff"] = d_ff
        data["layers"].append(layer)
    if not style:
        del data["style"]
    to.write_text(json.dumps(data))
    return to


def words(parent, file, to, *more):
    return ["export", "--from", str(parent), "--architecture", str(file), "--to", str(to), *more]


def in_this_process(monkeypatch):
    monkeypatch.setattr(stock, "run", stock_worker.do)


def refused(capsys, *arguments, code=2):
    """The one line of a command that fails."""
    assert main(list(arguments)) == code
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("nas export:")]
    return line


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_pruned_checkpoint_is_verified_by_transformers_in_a_fresh_process(
    parent, tmp_path, capsys
):
    pytest.importorskip("transformers")
    file = architecture(parent, tmp_path / "cut.json", layers=[(2, 1, 8)], style=False)
    to = tmp_path / "to"
    assert main(words(parent, file, to, "--format", "huggingface", "--json", "--quiet")) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["folder"] == str(to)
    card = done["card"]
    assert names(to) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert card["parent"] == {
        "name": "parent",
        "license": "apache-2.0",
        "model_type": "llama",
        "architecture": load_checkpoint(parent).architecture.describe(),
        "params": 1176,
    }
    assert card["params"] == 488
    assert card["changed"] == [
        "depth 2 to 1 (layers 0)",
        "n_heads 4 to 2",
        "n_kv_heads 2 to 1",
        "d_ff 12 to 8",
    ]
    found = card["load_verification"]
    assert found["stock_class"] == "LlamaForCausalLM" and found["missing"] == []
    assert found["auto_class"] == "AutoModelForCausalLM"
    assert 0 < found["output_difference"] < found["output_tolerance"] < 0.01
    readme = (to / "README.md").read_text()
    for part in ("license: apache-2.0", "d_ff 12 to 8", "AutoModelForCausalLM", "Nothing was tr"):
        assert part in readme
    assert "base_model" not in readme


def test_the_result_is_printed(parent, tmp_path, capsys, monkeypatch):
    pytest.importorskip("transformers")
    in_this_process(monkeypatch)
    file = architecture(parent, tmp_path / "same.json", layers=[(4, 2, 12)] * 2)
    assert main(words(parent, file, tmp_path / "to")) == 0
    shown = capsys.readouterr()
    assert "in a fresh process" in shown.err
    assert "parent   parent (apache-2.0), 1,176 parameters" in shown.out
    assert "changed  nothing" in shown.out and "as LlamaForCausalLM by transformers" in shown.out


def test_nothing_of_ours_can_be_imported_by_the_process_that_proves():
    for name in ("nas", "search_spaces.models", "predictors", "experiments"):
        with pytest.raises(ImportError, match="must not be imported"):
            stock_worker._Blocked.find_spec(name)
    assert stock_worker._Blocked.find_spec("nasty") is None


def test_what_no_stock_class_holds_has_a_module_of_its_own(parent, tmp_path, capsys):
    layers = [(4, 2, 12), (4, 2, 8)]
    file, to = architecture(parent, tmp_path / "cut.json", layers=layers), tmp_path / "to"
    line = refused(capsys, *words(parent, file, to))
    assert "layers[1].ffn.d_ff is 8" in line and line.endswith("; format python does")
    assert names(tmp_path) == ["cut.json", "parent"]
    assert main(words(parent, file, to, "--format", "python", "--json", "--quiet")) == 0
    card = json.loads(capsys.readouterr().out)["card"]
    assert card["load_verification"]["stock_class"] == "model.py"
    assert {"python", "architecture.json", "tokenizer.json"} <= set(names(to))
    assert 'sys.path.insert(0, "this folder/python")' in (to / "README.md").read_text()


def test_without_transformers_one_line_says_what_to_install(parent, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stock, "find_spec", lambda name: None)
    file = architecture(parent, tmp_path / "cut.json")
    line = refused(capsys, *words(parent, file, tmp_path / "to"))
    assert "pip install 'joulenas[checkpoints]'" in line
    assert names(tmp_path) == ["cut.json", "parent"]


@pytest.mark.parametrize(
    ("layers", "attention", "part"),
    [
        ([(4, 2, 16)], {}, "layers[0].ffn.d_ff must be at most 12"),
        ([(8, 2, 12)], {}, "layers[0].attention.n_heads must be at most 4"),
        ([(4, 2, 12)] * 3, {}, "depth must be in 1..2"),
        ([(4, 2, 12)], {"d_head": 4}, "layers[0].attention.d_head must be 2"),
        ([(4, 2, 12)], {"rank": 1}, "layers.0.attention.rank is 1"),
        ([(4, 2, 12)], {"precision": "int4wo"}, "cannot be stored in safetensors"),
        ([(4, 2, 12)], {"precision": "bf16"}, "stock classes compute in one type"),
    ],
)
def test_an_architecture_that_does_not_fit_is_refused(
    layers, attention, part, parent, tmp_path, capsys
):
    file = architecture(parent, tmp_path / "cut.json", layers=layers, **attention)
    assert part in refused(capsys, *words(parent, file, tmp_path / "to"))
    assert names(tmp_path) == ["cut.json", "parent"]


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["--format", "onnx"], "format must be one of huggingface, python, gguf with --from"),
        (["--format", "python,onnx"], "format must be one of"),
        (["--trial", "3"], "leave out --trial"),
        (["--knee"], "leave out --knee"),
        (["some-run"], "leave out a run folder"),
        (["--joule-tolerance", "0.3"], "leave out --joule-tolerance"),
        (["--quality-tolerance", "0"], "leave out --quality-tolerance"),
        (["--plugin", "families.py"], "leave out --plugin"),
    ],
)
def test_options_of_a_run_are_refused(more, part, parent, tmp_path, capsys):
    file = architecture(parent, tmp_path / "cut.json")
    assert part in refused(capsys, *words(parent, file, tmp_path / "to", *more))


def test_a_source_and_its_architecture_are_required(parent, tmp_path, capsys):
    to = ["--to", str(tmp_path / "to")]
    assert "a run folder or --from DIR must be given" in refused(capsys, "export", *to)
    line = refused(capsys, "export", "--from", str(parent), *to)
    assert "--from DIR requires --architecture FILE" in line
    line = refused(capsys, "export", "run", "--architecture", "x.json", *to)
    assert "--architecture requires --from DIR" in line
    line = refused(capsys, *words(tmp_path / "none", "x.json", tmp_path / "to"))
    assert "x.json" in line
    two = tmp_path / "two.json"
    one = json.loads(architecture(parent, tmp_path / "cut.json").read_text())
    two.write_text(json.dumps([one, one]))
    assert "one architecture, got 2" in refused(capsys, *words(parent, two, tmp_path / "to"))


def test_outputs_that_differ_leave_nothing(parent, tmp_path, capsys, monkeypatch):
    found = {"class": "X", "version": "transformers 9", "missing": []}
    # As if the class ignored a key.
    wrong = found | {"output_difference": 0.5, "largest_output": 1.0}
    monkeypatch.setattr(stock, "run", lambda job: wrong)
    monkeypatch.setattr(stock, "find_spec", lambda name: object())
    file = architecture(parent, tmp_path / "cut.json")
    line = refused(capsys, *words(parent, file, tmp_path / "to"), code=1)
    assert "outputs of X (transformers 9) differ by 0.5, allowed 0.0001" in line
    assert names(tmp_path) == ["cut.json", "parent"]


# In a process of its own: other libraries of a test's process have handlers and stacks of signals.
ENDED = """
import os, sys
from nas.cli.main import main
from nas.exporting.formats import stock
number, folder, *words = sys.argv[1:]
def ended(job):
    assert any(name.startswith(".nas-export-") for name in os.listdir(folder))
    os.kill(os.getpid(), int(number))
stock.find_spec = lambda name: object()
stock.run = ended
main(words)
"""


def ended_by(number, parent, tmp_path):
    file = architecture(parent, tmp_path / "cut.json")
    done = subprocess.run(
        [
            *(sys.executable, "-c", ENDED, str(int(number)), str(tmp_path)),
            *words(parent, file, tmp_path / "to"),
        ],
        check=False,
        timeout=200,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return done.returncode


def test_a_signal_half_way_leaves_nothing(parent, tmp_path):
    assert ended_by(signal.SIGTERM, parent, tmp_path) == 128 + signal.SIGTERM
    assert names(tmp_path) == ["cut.json", "parent"]


def test_a_killed_export_never_has_the_folders_name(parent, tmp_path):
    assert ended_by(signal.SIGKILL, parent, tmp_path) == -signal.SIGKILL
    assert not (tmp_path / "to").exists() and len(names(tmp_path)) == 3


def test_a_full_disk_is_one_line(parent, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stock, "find_spec", lambda name: object())
    file = architecture(parent, tmp_path / "cut.json")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file grows beyond the configuration.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        code = main(words(parent, file, tmp_path / "to", "--quiet"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    lines = capsys.readouterr().err.splitlines()
    assert code == 2 and lines[-1].startswith("nas export: model.safetensors could not be written")
    assert names(tmp_path) == ["cut.json", "parent"]


def test_a_folder_with_files_is_left_as_it_is(parent, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stock, "find_spec", lambda name: object())
    file = architecture(parent, tmp_path / "cut.json")
    line = refused(capsys, *words(parent, file, parent))
    assert "export folder must be new or empty" in line
    assert len(names(parent)) == 4


def test_the_page_shows_what_runs_and_is_printed(tmp_path, capsys, monkeypatch):
    pytest.importorskip("transformers")
    page = DOCS / "export.md"
    (example,) = (text for text in blocks(page, "python") if "load_checkpoint" in text)
    shown = next(text for text in blocks(page, "text") if "minilm-l4" in text)
    (line,) = (line for line in lines_of(page) if "--to minilm-l4" in line)
    # It has the depth and the feed-forward width of the real checkpoint.
    network = encoder("bert", "Model", num_hidden_layers=6, intermediate_size=1536)
    saved(network, tmp_path / "all-minilm-l6-v2")
    assert output_of(example, tmp_path, timeout=120) == ""
    monkeypatch.chdir(tmp_path)
    in_this_process(monkeypatch)
    capsys.readouterr()
    assert main(shlex.split(line)[1:]) == 0
    printed = capsys.readouterr().out.splitlines()
    titles = [[line[:10] for line in text] for text in (printed, shown.splitlines())]
    assert titles[0] == titles[1]
    assert printed[2] == shown.splitlines()[2]
    assert "depth 6 to 4 (layers 0, 2, 3, 5); d_ff 1536 to 768" in printed[2]
    data = json.loads((tmp_path / "pruned.json").read_text())
    data["layers"][1]["ffn"]["d_ff"] = 384
    (tmp_path / "uneven.json").write_text(json.dumps(data))
    line = refused(capsys, *words("all-minilm-l6-v2", "uneven.json", "never"))
    assert line in page.read_text().splitlines()


def test_a_network_in_bf16_is_stored_and_verified_so(parent, tmp_path, capsys, monkeypatch):
    pytest.importorskip("transformers")
    in_this_process(monkeypatch)
    file = architecture(parent, tmp_path / "cut.json", precision="bf16")
    data = json.loads(file.read_text())
    data["layers"][0]["ffn"]["precision"] = "bf16"
    file.write_text(json.dumps(data))
    to = tmp_path / "to"
    assert main(words(parent, file, to, "--json", "--quiet")) == 0
    card = json.loads(capsys.readouterr().out)["card"]
    assert card["changed"][-1] == "weights stored as bf16"
    assert {value.dtype for value in load_file(to / "model.safetensors").values()} == {
        torch.bfloat16
    }
    line = refused(capsys, *words(parent, file, tmp_path / "other", "--format", "python"))
    assert "precision must be fp32 with --format python" in line


def test_a_parent_of_the_hub_has_its_name_there(tmp_path, capsys, monkeypatch):
    folder = write_llama(tmp_path / "models--owner--small-llama" / "snapshots" / "3f2a")
    assert parent_name(load_checkpoint(folder)) == "owner/small-llama"
    found = {"class": "X", "version": "transformers 9", "missing": []}
    equal = found | {"output_difference": 0.0, "largest_output": 1.0}
    monkeypatch.setattr(stock, "run", lambda job: equal)
    monkeypatch.setattr(stock, "find_spec", lambda name: object())
    file = architecture(folder, tmp_path / "cut.json")
    assert main(words(folder, file, tmp_path / "to", "--quiet")) == 0
    readme = (tmp_path / "to" / "README.md").read_text()
    assert "base_model: owner/small-llama" in readme and "no licence: ask its authors" in readme
    assert "license:" not in readme
