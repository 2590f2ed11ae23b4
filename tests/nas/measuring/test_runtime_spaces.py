"""Runtimes of a space, of the command line and of a configuration, and what each of them holds."""

import json

import pytest
from runtime_fakes import THREE, TWO, config
from search_fakes import SPACE, report

from nas.cli.main import main
from nas.records.config import SearchConfig
from nas.records.device_names import MeasuredDevice
from nas.searching.controller import available
from search_spaces.space import SearchSpace


def test_a_space_names_its_runtimes_and_is_written_as_it_was_read(tmp_path):
    path = tmp_path / "space.yaml"
    data = SPACE.to_dict()
    path.write_text(json.dumps(data | {"runtime": list(TWO)}))
    space = SearchSpace.from_yaml(path)
    assert space.runtime == TWO and SearchSpace.from_dict(space.to_dict()) == space
    assert config(space=space).runtimes == TWO
    # One runtime more is asked for where the command names others.
    assert config(space=space, runtime=("openvino",)).runtimes == ("openvino",)
    # Spaces without the key have the data and the fingerprint that they had.
    assert "runtime" not in data and SPACE.runtime == () and config().runtimes == ("torch",)
    assert SearchSpace.from_dict(data | {"runtime": "openvino"}).runtime == ("openvino",)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], r"space file .*: runtime must be a list of runtimes or left out, got \[\]"),
        (3, "space file .*: runtime must be a list of runtimes, got 3"),
        (["torch", 1], "space file .*: runtime must be a list of runtimes"),
        (["torch", "torch"], "space file .*: runtime must name each once, got torch, torch"),
    ],
)
def test_runtimes_of_a_space_that_are_no_list_of_names_are_one_line(tmp_path, value, words):
    path = tmp_path / "space.yaml"
    path.write_text(json.dumps(SPACE.to_dict() | {"runtime": value}))
    with pytest.raises(ValueError, match=words):
        SearchSpace.from_yaml(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runtime": ("torch", "onnx")}, "runtime must be one of .*, got 'onnx'"),
        (
            {"runtime": TWO, "measure_on": (MeasuredDevice("edge"),)},
            "measure_on must be empty with several runtimes, got edge with torch, onnxruntime",
        ),
        (
            {"runtime": TWO, "runtime_choices": {"litert": ("fp32",)}},
            "runtime_choices must be of runtimes of the search, torch, onnxruntime, got litert",
        ),
        ({"runtime": TWO, "device": "cuda:0"}, "runtime onnxruntime runs on the CPU"),
    ],
)
def test_runtimes_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        config(**changes)


def test_a_stored_search_has_its_runtimes_again():
    stored = config(runtime=TWO, runtime_choices={"torch": ("fp32", "dense")})
    assert SearchConfig.from_dict(json.loads(json.dumps(stored.to_dict()))) == stored


def test_the_command_takes_runtimes_again_and_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["search", "quickstart", "--runtime", "torch", "--runtime", "onnx"]
    assert main(words) == 2
    said = capsys.readouterr().err.strip()
    assert "runtime must be one of" in said and "'onnx'" in said and len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def probed(space, device, rows, runtime):
    return {
        "torch": report(fp32="real", bf16="real", int8="harmful", int8wo="simulated"),
        "onnxruntime": report(fp32="real", int8="real"),
        "openvino": report(fp32="real", bf16="real", int8="harmful"),
    }[runtime]


def test_a_space_keeps_what_is_real_somewhere_and_each_runtime_measures_its_own():
    domain = ["fp32", "bf16", "int8", "int8wo"]
    space = SearchSpace.from_dict(
        SPACE.to_dict() | {"attention_precision": domain, "ffn_precision": domain}
    )
    with available.probed_by(probed):
        found, choices = available.space_for(space, "cpu", (2048,), THREE)
        lines = available.unmeasured_choices(space, "cpu", (2048,), choices)
        one, none = available.space_for(space, "cpu", (2048,), ("onnxruntime",))
    assert set(found.values("ffn_precision")) == {"fp32", "bf16", "int8", "int8wo"}
    # int8wo is real nowhere, and stays where it runs: the user named it.
    assert set(choices["torch"]) == {"fp32", "bf16", "int8wo", "dense"}
    assert set(choices["onnxruntime"]) == {"fp32", "int8", "dense"}
    # OpenVINO computes in bf16 throughout, which is no choice of a block.
    assert set(choices["openvino"]) == {"fp32", "dense"}
    assert "int8 is not measured in torch: int8 is harmful" in lines
    assert (
        "bf16 is not measured in openvino: it is the precision of a whole network there" in lines
    )
    assert none == {} and one.values("ffn_precision") == ("fp32", "int8")


def test_a_runtime_that_holds_no_member_is_one_line():
    domain = {"attention_precision": ["int8"], "ffn_precision": ["int8"]}
    space = SearchSpace.from_dict(SPACE.to_dict() | domain)
    with (
        available.probed_by(probed),
        pytest.raises(ValueError, match="runtime torch must hold members of the space: attention"),
    ):
        available.space_for(space, "cpu", (2048,), TWO)
