"""Searches from a checkpoint: trials in this process, resumption, hours, bad options."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from parent_fakes import causal_checkpoint, nothing_measured, review_task, text_checkpoint
from text_fakes import tale, write_task

import nas
from nas.cli.main import main
from nas.evaluation import teacher as teacher_module
from nas.records.config import CHECKPOINT, CheckpointConfig
from nas.searching.from_checkpoint import Plan, plan_lines, within_hours
from nas.training.scores import load_scores
from nas.training.weights import load_network


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Nothing is probed or compiled: a network's joules follow from its size."""
    with nothing_measured():
        yield


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return text_checkpoint(tmp_path_factory.mktemp("checkpoints") / "bert")


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    return review_task(tmp_path_factory.mktemp("data"), n=120)


def options(**changes):
    fields = {"meter": "estimate", "seed": 1}
    return {"trials": 4, "finalists": 2, "epochs": 3, "fields": fields, **changes}


@pytest.fixture(scope="module")
def run(bert, reviews, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("runs")
    source = shutil.copytree(bert, tmp_path / "bert")
    done = nas.search(
        checkpoint=source, task=reviews, to=tmp_path / "run", cuts=options(), workers=0
    )
    # The run has its own copy.
    shutil.rmtree(source)
    return done


def test_the_checkpoint_is_trial_0_the_teacher_and_the_parent_of_all(run, tmp_path):
    records = run.records()
    assert [r.state for r in records] == ["complete"] * 6
    first, config = records[0], run.config
    assert first.baseline and first.architecture == config.space.parent
    assert config.teacher == CHECKPOINT and config.checkpoint.source.endswith("bert")
    teacher = run.teacher()
    assert teacher.source == CHECKPOINT and teacher.quality == pytest.approx(first.quality)
    assert teacher.train_energy_j > 0
    # Trial 0 is the fine-tuned checkpoint to the bit.
    network = load_network(run.teacher_folder).model
    weights = load_any(run, 0)
    for name, value in network.state_dict().items():
        assert torch.equal(value, weights[name])
    assert {r.start for r in records} == {"teacher"}
    for record in records:
        assert config.space.contains(record.architecture)
    # Finalists train for all epochs, from the same cuts.
    finalists = [r for r in records if r.finalist_of is not None]
    assert len(finalists) == 2 and not any(r.baseline for r in finalists)
    assert {r.finalist_of for r in finalists} == set(run.finalists())
    # The checkpoint in each further real precision comes next, has its weights and is no finalist.
    assert records[1].architecture == first.architecture.in_precision("bf16")
    assert torch.equal(load_any(run, 1)["head.weight"], weights["head.weight"])
    assert not {0, 1} & set(run.finalists())
    scores = load_scores(run.teacher_folder / "scores.safetensors")
    assert scores.layers_by == "loss of sets"
    # Nothing of the training of the teacher is left.
    assert not (run.teacher_folder / "loop.safetensors").exists()


def load_any(run, number):
    from safetensors.torch import load_file

    return load_file(run.weights_path(number))


def test_a_run_is_resumed_without_the_checkpoint_and_where_it_was_moved(run, tmp_path, capsys):
    moved = shutil.copytree(run.folder, tmp_path / "elsewhere")
    done = nas.resume(moved, trials=5, workers=0)
    assert sum(r.finalist_of is None for r in done.records()) == 5
    assert done.config.task == str(moved / "parent" / "task.yaml")
    assert main(["front", str(moved)]) == 0
    assert "rank fidelity" in capsys.readouterr().out


def test_an_interrupted_fine_tune_goes_on_from_its_checkpoint(
    bert, reviews, tmp_path, monkeypatch
):
    epochs = []

    def stop_after_first(folder, n):
        def write(epoch, _):
            epochs.append(epoch)
            if epochs == [1]:
                raise KeyboardInterrupt

        return write

    monkeypatch.setattr("nas.training.checkpoint.INTERVAL_S", 0.0)
    monkeypatch.setattr(teacher_module, "_progress_writer", stop_after_first)
    monkeypatch.setattr(
        "nas.training.checkpoint.CheckpointManager.__init__", manager_of_every_epoch()
    )
    folder = tmp_path / "run"
    cuts = options(trials=1, finalists=0)
    done = nas.search(checkpoint=bert, task=reviews, to=folder, cuts=cuts, workers=0)
    assert done.records() == [] and epochs == [1]
    done = nas.resume(folder, workers=0)
    # The first epoch is read back, not repeated.
    assert epochs == [1, 1, 2, 3] and [r.state for r in done.records()] == ["complete"]


def manager_of_every_epoch():
    from nas.training.checkpoint import CheckpointManager

    make = CheckpointManager.__init__

    def init(self, path, epochs=frozenset(), *, interval_s=0.0):
        make(self, path, epochs, interval_s=0.0)

    return init


def test_a_causal_model_is_used_as_it_is_or_adapted_to_the_text(tmp_path):
    folder = causal_checkpoint(tmp_path / "llama")
    (tmp_path / "tale.txt").write_text(tale(300))
    task = write_task(
        tmp_path / "tale.yaml",
        name="tale",
        kind="language_modelling",
        data="tale.txt",
        context_length=16,
        block_length=256,
    )
    qualities = []
    for is_fine_tuned in (False, True):
        cuts = options(trials=2, finalists=0, epochs=1, is_fine_tuned=is_fine_tuned)
        done = nas.search(
            checkpoint=folder, task=task, to=tmp_path / f"{is_fine_tuned}", cuts=cuts, workers=0
        )
        teacher = done.teacher()
        assert (teacher.train_energy_j is not None) == is_fine_tuned
        qualities.append(done.records()[0].quality)
    assert qualities[1] > qualities[0]
    stored = load_network(tmp_path / "False" / "teacher").model.state_dict()
    own = nas.load_checkpoint(folder).with_length(16).build().state_dict()
    for name, value in own.items():
        assert torch.equal(value, stored[name])


def test_no_fine_tune_needs_a_head_for_the_task(bert, reviews, tmp_path):
    with pytest.raises(ValueError, match="must be fine-tuned on this task: its head.weight"):
        nas.search(
            checkpoint=bert,
            task=reviews,
            to=tmp_path / "run",
            cuts=options(is_fine_tuned=False),
            workers=0,
        )
    assert not (tmp_path / "run").exists()


def test_a_space_file_changes_genes_and_the_checkpoint_stays_a_member(bert, reviews, tmp_path):
    (tmp_path / "own.yaml").write_text("name: own\ndepth: [1, 2]\nattention_rank: [null]\n")
    cuts = options(trials=2, finalists=0, space=tmp_path / "own.yaml")
    done = nas.search(checkpoint=bert, task=reviews, to=tmp_path / "run", cuts=cuts, workers=0)
    assert done.config.space.name == "own"
    assert done.config.space.values("depth") == (3, 1, 2)
    assert done.config.space.values("attention_rank") == (None,)


@pytest.mark.thorough
def test_members_of_a_loadable_space_have_layers_alike(bert, reviews, tmp_path):
    cuts = options(trials=3, finalists=0, loadable=True)
    done = nas.search(checkpoint=bert, task=reviews, to=tmp_path / "run", cuts=cuts, workers=0)
    assert all(len(set(r.architecture.layers)) == 1 for r in done.records())
    assert {m.loadable for m in done.front()} == {True}


def test_hours_set_the_trials_and_lines_say_what_fits(run):
    plan = Plan(600, 60, 100, 180)
    assert plan.trials_within(1, 2, 4) == (3600 - 600 - 2 * 180) * 2 // 60 == 88
    config = within_hours(run.config, plan, 1, 2)
    assert config.trials == 94
    (expected, fit) = plan_lines(config, plan, 1, 2)
    assert "10 min" in expected and "60 s" in expected and fit.startswith("94 trials fit into 1 h")
    with pytest.raises(ValueError, match="hours must leave time for two trials"):
        within_hours(run.config, plan, 0.25, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quickstart", "--from", "{bert}"], "leave out the recipe 'quickstart'"),
        (["--from", "{bert}"], "--from DIR requires --task FILE"),
        (["--from", "{bert}", "--task", "{task}", "--distill"], "leave out --distill"),
        (["--from", "{bert}", "--task", "{task}", "--halving"], "leave out --halving"),
        (["--from", "{bert}", "--task", "{task}", "--evaluator", "supernet"], "--evaluator"),
        (["--from", "{bert}", "--task", "{task}", "--hours", "1", "--trials", "3"], "--hours and"),
        (["--from", "{bert}", "--task", "{task}", "--finalists", "-1"], "--finalists must be"),
        (["--from", "{bert}", "--task", "{task}", "--space", "digits-tiny"], "space must be a"),
        (["--from", "{bert}", "--task", "{task}", "--space", "{bad}"], "depth must be at most 3"),
        (["--from", "{bert}", "--task", "{task}", "--loadable"], None),
        (["--from", "nowhere", "--task", "{task}"], "nowhere"),
        (["--task", "{task}", "--hours", "2"], "--hours requires --from"),
        (["--task", "{task}", "--no-fine-tune"], "--no-fine-tune requires --from"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_options_that_do_not_fit_are_one_line(
    arguments, said, bert, reviews, tmp_path, monkeypatch, capsys
):
    if said is None:
        pytest.skip("allowed; see the test of spaces")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("depth: [9]\n")
    names = {"bert": bert, "task": reviews, "bad": tmp_path / "bad.yaml"}
    words = [word.format(**names) for word in arguments]
    assert main(["search", *words, "--quiet", "--workers", "0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[-1] and not [x for x in tmp_path.glob("runs/*")]


def test_one_command_starts_and_resumes_and_refuses_another_checkpoint(
    bert, reviews, tmp_path, capsys
):
    folder = tmp_path / "run"
    command = ["search", "--from", str(bert), "--task", reviews, "--run", str(folder)]
    command += ["--workers", "0", "--meter", "estimate", "--epochs", "1", "--finalists", "0"]
    assert main([*command, "--trials", "2", "--resume"]) == 0
    said = capsys.readouterr().err
    assert "expected here: fine-tuning the checkpoint" in said
    assert main([*command, "--trials", "3", "--resume", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["complete"] == 3
    other = text_checkpoint(tmp_path / "other")
    command[2] = str(other)
    assert main([*command, "--trials", "3", "--resume"]) == 2
    assert "--from must be what run" in capsys.readouterr().err


def test_what_belongs_together_in_a_configuration(run):
    config = run.config
    with pytest.raises(ValueError, match="checkpoint must be set"):
        replace(config, checkpoint=None)
    with pytest.raises(ValueError, match="teacher must be 'checkpoint'"):
        replace(config, teacher="largest")
    with pytest.raises(ValueError, match="checkpoint finalists"):
        CheckpointConfig("x", finalists=-1)
    with pytest.raises(ValueError, match="checkpoint source"):
        CheckpointConfig("")
    assert type(config).from_dict(config.to_dict()) == config
