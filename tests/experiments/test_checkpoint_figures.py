"""The benchmarks of a whole search around a checkpoint, and of what it is compared with."""

import pytest
import torch
from parent_fakes import nothing_measured, review_task, text_checkpoint
from record_fakes import FormulaMeasure

import nas
from experiments.benchmarks.compression import checkpoint_rivals, checkpoint_search
from experiments.benchmarks.compression.checkpoint_rivals import (
    Rival,
    Rivals,
    dominating,
    every_other,
    ways_of,
)
from experiments.benchmarks.compression.checkpoint_search import least_quality, spent_until
from nas.tasks.base.metric import ACCURACY, BITS_PER_BYTE


@pytest.fixture(scope="module", autouse=True)
def quick():
    with nothing_measured(), pytest.MonkeyPatch.context() as patch:

        def measured(architecture, workload, *, weights, inputs, **_):
            assert weights.is_file() and inputs.is_file()
            return FormulaMeasure()(architecture, workload, weights, inputs)

        patch.setattr(checkpoint_rivals, "measure_candidate", measured)
        patch.setattr(checkpoint_rivals, "torch_pruning", lambda parent: {})
        yield


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    task = review_task(folder / "data", n=120)
    run = folder / "reviews-run"
    line = ["--from", str(text_checkpoint(folder / "bert")), "--task", task, "--run", str(run)]
    line += ["--trials", "4", "--finalists", "1", "--epochs", "2"]
    assert checkpoint_search.main(line) == 0
    return line, nas.load(run)


def test_a_whole_search_prints_members_within_each_loss(searched, capsys):
    line, run = searched
    capsys.readouterr()
    before = run.records()
    # Called again, it searches no further.
    assert checkpoint_search.main(line) == 0
    out = capsys.readouterr().out
    assert run.records() == before and "the checkpoint in fp32 (trial 0) has" in out
    assert "never used to choose" in out and "loadable" in out


def test_a_search_that_is_stopped_says_so_and_goes_on(searched, tmp_path, capsys):
    line = list(searched[0])
    line[line.index("--run") + 1] = str(tmp_path / "run")
    assert checkpoint_search.main([*line, "--minutes", "0.002"]) == 0
    assert "call the command again" in capsys.readouterr().err
    assert checkpoint_search.main([*line, "--minutes", "5"]) == 0
    assert "fewer joules" in capsys.readouterr().out


def test_a_loss_is_of_points_or_of_bits():
    assert least_quality(ACCURACY, 0.88, 0.01) == pytest.approx(0.87)
    assert least_quality(BITS_PER_BYTE, 2.0**-1.5, 0.02) == pytest.approx(2.0**-1.53)


def test_joules_until_a_quality_include_the_fine_tuning(searched):
    run = searched[1]
    teacher, first = run.teacher(), run.records()[0]
    spent_j = spent_until(run, first.quality)
    assert spent_j == pytest.approx(teacher.energy_j + first.spent.energy_j)
    assert spent_until(run, 1.01) is None


def test_rivals_are_trained_alike_kept_and_compared(searched, tmp_path, capsys):
    run = searched[1]
    line = ["--run", str(run.folder), "--work", str(tmp_path / "work")]
    assert checkpoint_rivals.main([*line, "--minutes", "0"]) == 0
    assert "0 of 4 ways: call the command again" in capsys.readouterr().err
    assert checkpoint_rivals.main(line) == 0
    out = capsys.readouterr().out
    assert "every other layer" in out and "dominated by a member of the front" in out
    kept = (tmp_path / "work" / "rivals.jsonl").read_text()
    assert checkpoint_rivals.main(line) == 0
    assert (tmp_path / "work" / "rivals.jsonl").read_text() == kept
    rivals = Rivals(run, tmp_path / "work")
    assert len(rivals.done) == 4 * len(rivals.precisions)
    (parent,) = (r for r in rivals.done if r.way == "checkpoint" and r.precision == "fp32")
    assert parent.quality == pytest.approx(run.teacher().quality)
    assert parent.energy_j == pytest.approx(run.records()[0].energy_j)
    names = {way.name: way.architecture for way in ways_of(rivals.parent)}
    of = rivals.parent.architecture
    assert names["every other layer"].depth == 2
    assert names["magnitude, 50% less"].layers[0].ffn.d_ff == of.layers[0].ffn.d_ff // 2


def test_every_other_layer_stays():
    keeps = every_other(6)
    assert keeps[2].nonzero().flatten().tolist() == [0, 2, 4]
    assert torch.equal(keeps.sum(dim=1), torch.arange(1, 7))


def test_a_rival_is_dominated_by_no_less_quality_for_no_more_joules(searched):
    member = searched[1].front().members[-1]

    def rival(quality, energy_j):
        return Rival("way", "fp32", "", quality, 0.0, energy_j, True)

    assert dominating(rival(member.quality, member.energy_j), [member]) is member
    assert dominating(rival(member.quality + 0.01, member.energy_j), [member]) is None
    assert dominating(rival(member.quality, member.energy_j / 2), [member]) is None
