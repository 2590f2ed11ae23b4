"""Searches from a checkpoint: killed at any point, warm starts from them, exported trials."""

from dataclasses import replace

import pytest
from forking import Forked
from parent_fakes import (
    cut_options,
    nothing_measured,
    review_task,
    search_and_die,
    search_here,
    text_checkpoint,
)
from safetensors.torch import load_file, save_file

import nas
from nas.cli.main import main
from nas.inheriting.shipped import packed, unpack
from nas.searching.gating.prior_run import Conditions
from nas.searching.gating.warm_start import collect_warm_start


@pytest.fixture(scope="module")
def started_from(tmp_path_factory):
    """A checkpoint and a task in its words."""
    folder = tmp_path_factory.mktemp("given")
    return text_checkpoint(folder / "bert"), review_task(folder / "data", n=80)


@pytest.fixture(scope="module")
def whole(started_from, tmp_path_factory):
    """The run that nothing disturbed."""
    return search_here(*started_from, tmp_path_factory.mktemp("runs") / "whole")


def facts_of(run):
    """What may not depend on interruptions: of trials, all but what they took."""
    return {
        r.number: (r.state, r.architecture, r.quality, r.test_quality, r.finalist_of)
        for r in run.records()
    }


def die(at, started_from, folder):
    process = Forked(search_and_die, at, *started_from, folder)
    with process:
        _, errors = process.communicate(120)
    assert process.returncode in (0, 9), errors
    return process.returncode == 9


# While the checkpoint is fine-tuned, a candidate is trained, and a finalist.
@pytest.mark.parametrize("at", [4, 20, 34])
def test_a_search_that_dies_goes_on_as_if_it_had_not(at, whole, started_from, tmp_path):
    folder = tmp_path / "run"
    assert die(at, started_from, folder)
    assert facts_of(search_here(*started_from, folder)) == facts_of(whole)


@pytest.mark.thorough
@pytest.mark.timeout(1200)
def test_a_search_may_die_at_any_write(whole, started_from, tmp_path):
    """At each third: of the copied checkpoint, weights, scores, outputs, trials, finalists."""
    at = 1
    while die(at, started_from, tmp_path / str(at)):
        run = search_here(*started_from, tmp_path / str(at))
        assert facts_of(run) == facts_of(whole), f"killed at write {at}"
        assert not list(run.folder.glob(".parent*")), f"killed at write {at}"
        at += 3
    assert at > 30


def test_a_checkpoint_that_was_half_copied_is_copied_again(started_from, tmp_path):
    folder = tmp_path / "run"
    left = folder / ".parent.1"
    left.mkdir(parents=True)
    (left / "config.json").write_text("{")
    run = search_here(*started_from, folder)
    assert len(run.records()) == 4 and not left.exists()


def test_a_later_search_takes_candidates_of_this_one_but_not_its_finalists(
    whole, started_from, tmp_path
):
    conditions = Conditions.of(whole.records()[0].reading, whole.workload)
    fields = {**cut_options()["fields"], "warm_start": (str(whole.folder),)}
    with nothing_measured():
        again = nas.search(
            checkpoint=started_from[0],
            task=started_from[1],
            to=tmp_path / "again",
            cuts=cut_options(fields=fields),
            workers=0,
        )
    (prior,) = collect_warm_start(again.config, conditions).runs
    assert prior.qualities_differ_by is None
    finalists = [r for r in whole.records() if r.finalist_of is not None]
    assert len(finalists) == 1 and len(prior.trials) == len(whole.records()) - 1
    shorter = {r.architecture: r.quality for r in whole.records() if r.finalist_of is None}
    assert {t.architecture: t.quality for t in prior.trials} == shorter
    # Another checkpoint's qualities do not compare, and another task is refused.
    other = text_checkpoint(tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    save_file({name: 0.9 * value for name, value in tensors.items()}, other / "model.safetensors")
    with nothing_measured():
        unlike = nas.search(
            checkpoint=other,
            task=started_from[1],
            to=tmp_path / "unlike",
            cuts=cut_options(trials=1, finalists=0),
            workers=0,
        )
    config = replace(unlike.config, warm_start=(str(whole.folder),))
    (prior,) = collect_warm_start(config, conditions).runs
    assert prior.qualities_differ_by == "its networks started from another checkpoint"
    task = review_task(tmp_path / "data", n=60)
    with nothing_measured():
        elsewhere = nas.search(
            checkpoint=started_from[0],
            task=task,
            to=tmp_path / "elsewhere",
            cuts=cut_options(trials=1, finalists=0),
            workers=0,
        )
    config = replace(elsewhere.config, warm_start=(str(whole.folder),))
    with pytest.raises(ValueError, match="must be of task"):
        collect_warm_start(config, conditions)


def test_a_front_shows_by_which_quality_a_finalist_was_chosen(whole, capsys):
    (finalist,) = (r for r in whole.records() if r.finalist_of is not None)
    assert finalist.inherited_quality == whole.trial(finalist.finalist_of).quality
    assert main(["front", str(whole.folder)]) == 0
    shown = capsys.readouterr().out
    assert "supernet" not in shown and "inherited" not in shown
    if finalist.number in {m.trial for m in whole.front()}:
        assert "before: quality when it was chosen as a finalist" in shown


@pytest.mark.thorough
@pytest.mark.usefixtures("counted_joules")
def test_a_trial_is_exported_and_opened_by_the_stock_class_alone(
    started_from, tmp_path, counted_joules
):
    transformers = pytest.importorskip("transformers")
    import torch

    from nas.core.files import read_array

    fields = {"meter": counted_joules, "seed": 1, "protocol": "quick"}
    cuts = cut_options(trials=2, finalists=1, loadable=True, fields=fields)
    run = nas.search(
        checkpoint=started_from[0], task=started_from[1], to=tmp_path / "run", cuts=cuts, workers=0
    )
    (finalist,) = (r for r in run.records() if r.finalist_of is not None)
    assert finalist.architecture != run.config.space.parent
    done = nas.export(
        run, finalist.number, tmp_path / "model", formats=("huggingface",), joule_tolerance=9.0
    )
    assert done.card["verified"]["validation_quality"] == pytest.approx(finalist.quality)
    stored = tmp_path / "model" / "huggingface"
    reader = transformers.AutoTokenizer.from_pretrained(stored)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(stored).eval()
    assert type(model).__name__ == "BertForSequenceClassification"
    assert sorted(model.config.id2label.values()) == ["neg", "pos"]
    inputs = torch.from_numpy(read_array(run.inputs_path))[:8]
    from nas.exporting.artifact import load_artifact

    expected = load_artifact(tmp_path / "model").call(inputs)
    with torch.no_grad():
        mask = (inputs != run.workload.padding_token).long()
        found = model(inputs, attention_mask=mask).logits
        # The tokenizer gives the rows that the network was trained on.
        texts = [reader.decode(row[row != run.workload.padding_token][1:-1]) for row in inputs]
        given = reader(texts, padding=True, truncation=True, return_tensors="pt")
        by_text = model(**given).logits
    assert (found - expected).abs().max() < 1e-4
    assert (by_text - expected).abs().max() < 1e-4


def test_a_cluster_that_does_not_see_the_run_folder_gets_the_checkpoint(whole, tmp_path):
    files = packed(whole.folder)
    assert files.keys() >= {"task.yaml", "config.json", "model.safetensors", "tokenizer.json"}
    there = tmp_path / "run" / "parent"
    unpack(files, tmp_path / "run")
    assert {path.name: path.read_bytes() for path in there.iterdir()} == files
    # What is there stays: on a shared disk it is the same folder.
    unpack(files | {"other": b""}, tmp_path / "run")
    assert not (there / "other").exists()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["parent"]
    # A search without a checkpoint has nothing to send.
    assert packed(tmp_path) == {}
    unpack({}, tmp_path / "other")
    assert not (tmp_path / "other").exists()
