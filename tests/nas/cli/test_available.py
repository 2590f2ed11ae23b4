import pytest
from search_fakes import report

from nas.cli.main import main
from nas.cli.output.kernels import render_kernels
from nas.searching.controller.available import available_space, unreal_choices
from search_spaces.compression import probing
from search_spaces.space import SearchSpace
from search_spaces.space.presets import PRESETS

PRESET = PRESETS["digits-tiny"]
OWN = SearchSpace.from_dict(
    PRESET.to_dict()
    | {
        "name": "own",
        "ffn_precision": ["fp32", "int8", "fp8"],
        "ffn_sparsity": ["dense", "2:4"],
        "attention_sparsity": ["unstructured-90"],
    }
)


@pytest.fixture
def asked(monkeypatch):
    seen = {}

    def probed(device, **rest):
        seen.update(rest)
        masks = {"2_4": "simulated", "unstructured-90": "simulated"}
        return report(fp32="real", bf16="real", int8="harmful", fp8="absent", **masks)

    monkeypatch.setattr(probing, "probe", probed)
    return seen


def test_a_preset_offers_only_what_is_real_at_its_shapes(asked):
    space = available_space(PRESET, "cpu", (2048,))
    assert space.values("ffn_precision") == ("fp32", "bf16")
    assert space.values("ffn_sparsity") == ("dense",)
    assert unreal_choices(PRESET, "cpu", (2048,)) == ()
    assert asked["shapes"] == (probing.Shape(64, 2048),)
    assert set(asked["choices"]) == {"fp32", "bf16", "int8", "dense"}


def test_a_space_of_ones_own_keeps_what_runs_and_is_told_what_it_is(asked):
    space = available_space(OWN, "cpu", (2048,))
    assert space.values("ffn_precision") == ("fp32", "int8")
    assert space.values("ffn_sparsity") == ("dense", "2:4")
    assert space.values("attention_sparsity") == ("unstructured-90",)
    assert unreal_choices(OWN, "cpu", (2048,)) == (
        "int8 only harms on cpu: int8 is harmful",
        "fp8 is left out on cpu: fp8 is absent",
        "2:4 is simulated on cpu: 2_4 is simulated",
        "unstructured-90 is simulated on cpu: unstructured-90 is simulated",
    )


def test_a_space_of_what_cannot_run_is_refused(asked):
    only = SearchSpace.from_dict(OWN.to_dict() | {"ffn_precision": ["fp8"]})
    with pytest.raises(ValueError, match="must offer one of .*offered on this device"):
        available_space(only, "cpu", (2048,))


def test_doctor_shows_each_choice_and_what_is_offered(asked, capsys):
    assert main(["doctor", "--device", "cpu", "--kernels"]) == 0
    out = capsys.readouterr().out
    assert "absent: fp8 (fp8 is absent)" in out
    assert "simulated: 2:4 (2_4 is simulated)" in out
    assert "choices by default: fp32, bf16; dense" in out
    assert "no real meter covers this device" in out and "joules/bf16" not in out


def test_joules_have_a_column_where_a_meter_gave_some():
    from dataclasses import replace

    found = report(fp32="real", int8="real")
    assert "joules/bf16" not in render_kernels(found)
    rows = tuple(replace(r, time_to_fp32=0.5, joules_to_bf16=0.7) for r in found.rows)
    text = render_kernels(replace(found, rows=rows))
    assert "joules/bf16" in text and "0.70x" in text
