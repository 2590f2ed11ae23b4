"""A decoder's two phases, prefill and generation, side by side: measured, refused, on cards."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from media_fakes import task_file
from run_fakes import make_run
from search_fakes import make_trial, reading
from text_fakes import tale

from nas.cli.commands import measure
from nas.cli.main import main
from nas.core.files import write_json
from nas.exporting import verify as verifying
from nas.exporting.card import make_card
from nas.exporting.readme import render_readme
from nas.exporting.verify import Verification, verify_artifact
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.space import SearchSpace
from search_spaces.workload import Workload

SMALL = Architecture(16, (LayerSpec(AttentionSpec(2, 2, 8), FfnSpec(32)),))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def task(tmp_path):
    (tmp_path / "tale.txt").write_text(tale(900))
    return task_file(
        tmp_path / "task.yaml",
        name="tale",
        kind="language_modelling",
        data="tale.txt",
        context_length=32,
        block_length=256,
        phase="generate",
    )


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """What ``nas measure`` gave the runner, which measures nothing here."""
    items = []
    monkeypatch.setattr(measure, "_measure", lambda _, __, found, *___: items.extend(found))
    return items


BOTH = ["--phase", "prefill", "--phase", "generate", "--device", "cpu", "--quiet"]


def test_a_front_is_measured_in_both_phases_by_one_command(task, tmp_path, asked):
    front = {"schema": 1, "members": [{"trial": 4, "architecture": SMALL.to_dict()}]}
    (tmp_path / "front.json").write_text(json.dumps(front))
    words = ["measure", str(tmp_path / "front.json"), "--task", task, "--batch-size", "4", *BOTH]
    assert main([*words, "--meter", "estimate", "--to", str(tmp_path / "r.jsonl")]) == 0
    assert [item.workload.key for item in asked] == ["tale@32/prefill/b4", "tale@32/generate/b4"]
    assert {item.architecture for item in asked} == {SMALL}


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--phase", "decode"], "phase must be one of prefill, generate or null, got 'decode'"),
        (
            ["--task", "digits", "--phase", "prefill"],
            "phase must be null for image_classification",
        ),
    ],
)
def test_what_has_no_such_phase_is_refused_in_one_line(task, tmp_path, capsys, words, cause):
    (tmp_path / "a.json").write_text(json.dumps(SMALL.to_dict()))
    assert main(["measure", str(tmp_path / "a.json"), "--task", task, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert cause in line


def test_a_comparison_is_of_one_phase(task, tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps(SMALL.to_dict()))
    words = ["--compare", *[str(tmp_path / "a.json")] * 2, "--phase", "prefill"]
    assert main(["measure", *words, "--phase", "generate", "--task", task]) == 2
    assert "--compare measures on one workload: give one --phase" in capsys.readouterr().err


def test_a_space_is_sampled_once_for_both_phases(task, tmp_path, asked, monkeypatch):
    genes = {"d_model": [8, 16], "depth": [1], "n_heads": [2], "n_kv_heads": [2]}
    space = SearchSpace.from_dict({"name": "s", **genes, "ffn_ratio": [1, 2, 4]})
    # What the device offers takes a probe of its kernels.
    monkeypatch.setattr(measure, "_available_space", lambda *_: space)
    (tmp_path / "s.yaml").write_text(json.dumps(space.to_dict()))
    words = ["measure", "--space", str(tmp_path / "s.yaml"), "--sample", "4", "--task", task]
    main([*words, *BOTH, "--meter", "estimate", "--to", str(tmp_path / "r.jsonl")])
    prefill, generate = (
        {item.architecture for item in asked if item.workload.phase == phase}
        for phase in ("prefill", "generate")
    )
    assert len(prefill) == 4 and prefill == generate


def test_a_workload_keeps_all_but_its_phase():
    whole = Workload("lm", "language_modelling", (8,), 9, 2, vocab_size=9)
    assert whole.with_phase("prefill").key == "lm@8/prefill/b2"
    assert whole.with_phase("prefill").with_phase(None) == whole


def test_the_card_has_a_row_for_each(tmp_path):
    run = make_run(tmp_path / "run", trials=6)
    record = next(r for r in run.trials() if r.state == "complete")
    searched = replace(reading(2e-6), unit="generated token")
    other = replace(reading(3e-7), unit="prefill token")
    done = Verification(0, 0, 1, 1, 0, 1, 1, searched, (other,))
    text = render_readme(make_card(run, record, done))
    assert "| joules per generated token |" in text
    assert "| joules per prefill token | | 300 nJ [294 nJ, 306 nJ] |" in text
    plain = render_readme(make_card(run, record, replace(done, other_phases=())))
    assert "prefill" not in plain and "\n\n\nJoules:" not in plain


def test_an_export_measures_the_phase_that_was_not_searched_by(tmp_path, monkeypatch):
    asked = []

    def measured(architecture, workload, **options):
        asked.append(options)
        return SimpleNamespace(reading=replace(reading(1e-6), unit=workload.unit))

    monkeypatch.setattr("predictors.measurement.runner.measure_fresh", measured)
    same = {"output_difference": 0.0, "validation_quality": 0.5, "n_validation": 9}
    same |= {"test_quality": 0.5, "test_quality_se": 0.1}
    same |= {"largest_output": 1.0, "reading": None, "runtime": "torch", "mode": None}
    monkeypatch.setattr(verifying, "reload_formats", lambda *_: {"safetensors": same})
    write_json(tmp_path / "architecture.json", SMALL.to_dict())
    workload = Workload("lm", "language_modelling", (8,), 9, 2, vocab_size=9)
    write_json(tmp_path / "workload.json", workload.to_dict())
    record = make_trial(0, "complete", SMALL, quality=0.5, quality_se=0.1, reading=reading(1e-6))
    for phase, others in (("generate", ["prefill token"]), (None, [])):
        run = SimpleNamespace(
            workload=workload.with_phase(phase),
            config=SimpleNamespace(protocol="quick", device="cpu", runtimes=("torch",)),
            meter="estimate",
            task="lm",
            inputs_path=tmp_path / "inputs.npy",
        )
        found = verify_artifact(run, record, tmp_path, joule_tolerance=0.3)
        assert [other.unit for other in found.other_phases] == others
    assert len(asked) == 3 and all(one == asked[0] for one in asked)
