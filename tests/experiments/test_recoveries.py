"""Benchmarks of recoveries: kept as they are done, resumed, and what their tables say."""

import json

import pytest
import torch
from parent_fakes import review_task, text_checkpoint

from experiments import digits_checkpoint, sst2
from experiments.benchmarks.compression import short_distillation, ways_to_recover
from experiments.benchmarks.compression.recoveries import (
    Recoveries,
    cuts_in_order,
    dense_config,
    members,
)
from experiments.benchmarks.compression.shared_parent import SharedParent, train_shared
from experiments.benchmarks.compression.ways_to_recover import Result, read_results, table_of
from nas.tasks.registry import get_task
from nas.training.config import TrainingConfig
from search_spaces.pretrained import load_checkpoint


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    return text_checkpoint(folder / "bert"), review_task(folder / "data", n=80), folder / "work"


@pytest.fixture(scope="module")
def recoveries(given):
    source, task, work = given
    config = dense_config(
        source,
        task,
        work,
        epochs=2,
        seed=0,
        genes={"attention_rank": [None], "ffn_rank": [None]},
    )
    return Recoveries(config, work)


def words(given, *more):
    source, task, work = given
    options = ["--from", str(source), "--task", task, "--work", str(work), "--epochs", "2"]
    return [*options, *more]


def test_a_command_that_is_stopped_repeats_no_recovery(given, recoveries, monkeypatch, capsys):
    line = words(given, "--n", "6", "--lengths", "0", "1")
    assert short_distillation.main([*line, "--minutes", "0"]) == 0
    assert "0 of 6 cuts: call the command again" in capsys.readouterr().err
    assert short_distillation.main(line) == 0
    out = capsys.readouterr().out
    assert "ranked by, epochs" in out and "whose validation quality is" in out
    kept = given[2] / "recoveries.jsonl"
    rows = [json.loads(row) for row in kept.read_text().splitlines()]
    assert sorted(row["epochs"] for row in rows) == sorted([0, 1, 2] * 6)
    monkeypatch.setattr(Recoveries, "trained", None)
    assert short_distillation.main(line) == 0
    assert capsys.readouterr().out == out


def test_cuts_are_different_and_never_the_parent(recoveries):
    space = recoveries.config.space
    found = members(space, 12, 0)
    assert len(set(found)) == 12 and space.parent not in found
    assert all(space.contains(cut) for cut in found)
    assert members(space, 5, 0) == found[:5]
    assert next(cuts_in_order(space, 1)) != found[0]


def test_slices_of_the_shared_network_are_the_cuts_of_the_parent(recoveries):
    """Before it is trained; a search's cuts are also adapted, which slices are not."""
    from search_spaces.compression.inherit import inherit

    shared = SharedParent(recoveries)
    inputs = torch.from_numpy(recoveries.task.split("validation").inputs)
    teacher = recoveries.teacher
    for cut in [teacher.architecture, *members(recoveries.config.space, 8, 0)]:
        expected = inherit(
            teacher.model,
            teacher.architecture,
            cut,
            recoveries.workload,
            importance=teacher.scores.importance,
        )
        with torch.no_grad():
            outputs = shared.outputs(cut, inputs)
            assert torch.allclose(outputs, expected(inputs), atol=1e-5)
            assert torch.allclose(shared.extracted(cut)(inputs), outputs, atol=1e-5)


def test_training_the_shared_network_changes_the_shared_weights_alone(recoveries):
    shared, seconds = SharedParent(recoveries), iter(range(1000))
    before = {name: value.clone() for name, value in shared.network.named_parameters()}
    steps = train_shared(shared, recoveries, 12.0, lambda: float(next(seconds)))
    assert steps > 3
    now = dict(shared.network.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], now[name])}
    assert {"layers.0.ffn.up.weight", "head.weight"} <= changed
    stored = dict(recoveries.teacher.model.named_parameters())
    assert all(torch.equal(before[name], stored[name]) for name in before)


@pytest.mark.parametrize("arm", ways_to_recover.ARMS)
def test_each_arm_ends_in_time_and_is_kept(arm, given, capsys):
    line = words(given, "--arm", arm, "--minutes", "0.05")
    assert ways_to_recover.main(line) == 0
    path = given[2] / "ways.jsonl"
    found = read_results(path, 0.05)[arm, 0]
    assert found.n_trained >= 1 and found.n_judged >= 1 and 0.3 <= found.best_quality <= 1
    before = path.read_text()
    assert ways_to_recover.main(line) == 0 and path.read_text() == before


def test_ways_are_compared_seed_by_seed():
    def result(arm, seed, volume):
        return Result(arm, seed, 20.0, volume, 0.8, 5, 7, 0, 1200.0)

    rows = [result("alone", s, 0.1 * s) for s in (1, 2, 3)]
    rows += [result("supernet", s, 0.1 * s - 0.05) for s in (1, 2)]
    table = table_of(rows, 20.0, "sst2")
    assert [row["seeds"] for row in table.rows] == [2, 2]
    assert table.rows[1]["more"] == pytest.approx(-0.05) and table.rows[0]["more"] is None


def test_sentences_are_drawn_once_and_the_task_file_names_them(tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    for name, n in (("train", 50), ("dev", 10), ("test", 10)):
        lines = "".join(
            f"{i % 2} {'good' if i % 2 else 'bad'} film {name} {i}\n" for i in range(n)
        )
        (data / f"stsa.binary.{name}").write_text(lines)
    assert sst2.main([str(data), str(tmp_path / "work"), "--samples", "20"]) == 0
    path = tmp_path / "work" / "sst2-20.yaml"
    assert capsys.readouterr().out.strip() == str(path)
    task = get_task(str(path))
    assert [len(task.split(s)) for s in ("train", "validation", "test")] == [20, 10, 10]
    with pytest.raises(SystemExit):
        sst2.main([str(data), str(tmp_path / "work"), "--samples", "51"])
    assert "--samples must be in 1..50, got 51" in capsys.readouterr().err


def test_a_vit_of_the_digits_is_a_checkpoint_whose_pictures_are_its_own(tmp_path):
    task = digits_checkpoint.write_pictures(tmp_path)
    recipe = TrainingConfig(epochs=1, batch_size=64, learning_rate=2e-3)
    quality = digits_checkpoint.trained_vit(task, tmp_path / "vit", recipe)
    assert 0.1 < quality <= 1
    checkpoint = load_checkpoint(tmp_path / "vit")
    assert checkpoint.workload.kind == "image_classification"
    assert checkpoint.workload.input_shape == (1, 8, 8)
    # The same pixels as the task of that name, up to rounding to 256 levels.
    ours, theirs = get_task(str(task)).split("test"), get_task("digits").split("test")
    assert ours.inputs.shape == theirs.inputs.shape
    assert abs(ours.inputs - theirs.inputs).max() < 0.05
    assert (ours.targets == theirs.targets).all()
