"""Pictures of a run, and the figures that are in them."""

import re

import numpy as np
import pytest
from PIL import Image
from run_fakes import make_run
from search_fakes import SPACE, WORKLOAD

from nas.analysis.history import history_of
from nas.analysis.importance import GeneImportance, Importance, importance_of
from nas.analysis.predictions import coverage_of, predictions_of
from nas.analysis.summary import summarise
from nas.charts.architecture import architecture_chart
from nas.charts.blocks import blocks_of
from nas.charts.importance import importance_chart
from nas.charts.matplotlib_figure import save
from nas.charts.progress import progress_charts
from nas.cli.main import main
from nas.pareto.hypervolume import hypervolume
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)

WHAT = ("front", "progress", "predictions", "importance", "architecture")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("plots") / "run", trials=24)


def test_the_history_ends_at_the_fronts_hypervolume_and_the_searchs_joules(run):
    history, summary = history_of(run), summarise(run)
    steps = history.steps
    assert [s.evaluations for s in steps] == list(range(1, 25))
    assert steps[-1].hypervolume == pytest.approx(summary.volume.hypervolume)
    assert steps[-1].spent_energy_j == pytest.approx(summary.spent_energy_j)
    volumes = [s.hypervolume for s in steps]
    assert volumes == sorted(volumes) and volumes[0] < volumes[-1]
    assert all(a.elapsed_s <= b.elapsed_s for a, b in zip(steps, steps[1:], strict=False))
    # Half-way, by the definition: every trial until then, from the same corner.
    half = {s.trial for s in steps[:12]}
    values = [r.objectives for r in run.trials() if r.number in half]
    losses = np.column_stack([[1 - a for a, _ in values], [np.log10(j) for _, j in values]])
    corner = (1 - history.reference[0], np.log10(history.reference[1]))
    assert steps[11].hypervolume == pytest.approx(hypervolume(losses, corner, (False, False)))


def test_stairs_have_a_mark_for_each_change_alone(run):
    history = history_of(run)
    volumes = [step.hypervolume for step in history.steps]
    chart = progress_charts(history, "", "joules")[0]
    stairs = [(mark.x, mark.y) for mark in chart.series[0].marks]
    n_changes = sum(a != b for a, b in zip(volumes, volumes[1:], strict=False))
    assert len(stairs) == 1 + n_changes + 1 < len(volumes)
    assert stairs[-1] == (len(volumes), volumes[-1])
    # Each step has the height of the last stair up to it.
    for step in history.steps:
        assert [y for x, y in stairs if x <= step.evaluations][-1] == step.hypervolume


def test_predictions_are_those_of_trials_that_were_measured(run):
    records = {r.number: r for r in run.trials()}
    found = predictions_of(list(records.values()))
    assert len(found) == 24
    for p in found:
        reading = records[p.trial].reading
        assert p.measured == reading.estimate
        assert p.inside == (p.predicted.low <= reading.energy_j <= p.predicted.high)
    coverage = coverage_of(found)
    assert coverage.n_inside == sum(p.inside for p in found) and coverage.n == 24
    assert 0 <= coverage.share.low < coverage.share.mean <= coverage.share.high <= 1
    assert coverage_of([]) is None


def test_importance_finds_what_the_formulas_are_made_of(run):
    found = importance_of(run.trials(), run.config.space)
    assert found.joules_r2 > 0.3 and found.n_trials == 24
    assert found.genes[0].gene == "d_model"
    assert found.genes[0].joules > 3 * abs(found.genes[-1].joules)
    assert {g.gene for g in found.genes} <= set(SPACE.domains)
    # Genes of one value say nothing, whatever the depth is.
    assert "ffn_rank" not in {g.gene for g in found.genes}
    assert importance_of(run.trials(), run.config.space) == found
    with pytest.raises(ValueError, match="at least 10 complete trials, got 9"):
        importance_of(run.trials()[:9], run.config.space)


def test_blocks_join_equal_layers_and_name_what_differs():
    plain = LayerSpec(AttentionSpec(4, 2, 16), FfnSpec(128))
    masked = LayerSpec(
        AttentionSpec(4, 4, 16, rank=8),
        FfnSpec(64, compression=Compression("bf16", "2:4")),
    )
    found = blocks_of(Architecture(64, (plain, plain, plain, masked), 2))
    assert [(b.layer, b.repeats, b.label, b.width) for b in found] == [
        ("0-2", 3, "attention", 64),
        ("0-2", 3, "feed-forward", 128),
        ("3", 1, "attention", 64),
        ("3", 1, "feed-forward", 64),
    ]
    assert found[2].detail == "4/4 heads, 64 wide, rank 8"
    assert found[3].detail == "64 wide, 2:4 simulated" and found[3].precision == "bf16"
    on_gpu = blocks_of(Architecture(64, (masked,), 2), "cuda:0")
    assert on_gpu[1].detail == "64 wide, 2:4"


def test_every_picture_is_drawn_at_the_width_of_a_column(run, tmp_path, capsys):
    assert main(["plot", str(run.folder), "--to", str(tmp_path / "p")]) == 0
    paths = capsys.readouterr().out.split()
    assert [p.rpartition("/")[2] for p in paths] == [f"{name}.png" for name in WHAT]
    for path in paths:
        image = Image.open(path)
        assert image.width == 990
        # More than a frame: a share of the pixels is not white.
        assert 0.01 < (np.asarray(image.convert("L")) < 200).mean() < 0.6
    assert not [p for p in (tmp_path / "p").iterdir() if p.name.endswith(".tmp")]


@pytest.mark.parametrize("what", WHAT)
def test_what_a_picture_says_in_words(run, tmp_path, what):
    path = tmp_path / "x.svg"
    assert main(["plot", str(run.folder), "--what", what, "--to", str(path)]) == 0
    words = " ".join(re.findall(r">([^<>]+)</text>", path.read_text()))
    coverage = coverage_of(predictions_of(run.trials()))
    chosen = run.front().recommended()
    expected = {
        "front": ("joules per sample (fake", "front", "baseline", "trained"),
        "progress": ("trials evaluated", "joules spent by the search (fake)"),
        "predictions": (f"{coverage.share.mean:.0%} of 24 intervals held",),
        "importance": ("d model", "by 24 trials", "R²"),
        "architecture": (chosen.architecture_text, "attention", "patches of"),
    }[what]
    assert all(text in words for text in expected), words
    again = tmp_path / "y.pdf"
    assert main(["plot", str(run.folder), "--what", what, "--to", str(again)]) == 0
    assert again.read_bytes().startswith(b"%PDF")


def test_what_was_not_learnt_has_no_bars(tmp_path):
    genes = (GeneImportance("depth", 0.5, 0.1, 0.7, 0.1),)
    save([importance_chart(Importance(genes, 0.8, -0.4, 12))], tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    assert "quality (R² -0.40: too few trials)" in text and "joules (R² 0.80)" in text


def test_what_cannot_be_drawn_is_one_line(run, tmp_path, capsys):
    few = make_run(tmp_path / "few", trials=3).folder
    wrong = [
        ([run.folder, "--to", "x.png"], "must be a folder"),
        ([run.folder, "--what", "front", "--to", "x.bmp"], "must end in .png"),
        ([run.folder, "--what", "front", "--trial", "1", "--to", "x.png"], "trial"),
        ([run.folder, "--what", "architecture", "--trial", "99", "--to", "x.png"], "99"),
        ([run.folder, "--what", "front", "--to", tmp_path / "no" / "x.png"], "writable"),
        ([few, "--what", "importance", "--to", tmp_path / "x.png"], "at least 10"),
    ]
    for words, says in wrong:
        assert main(["plot", *map(str, words)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and says in err and len(err.splitlines()) == 1
    # Of all pictures, those it has enough for.
    assert main(["plot", str(few), "--to", str(tmp_path / "some")]) == 0
    out, err = capsys.readouterr()
    assert len(out.split()) == 4 and "not drawn, importance: " in err
    deep = [LayerSpec(AttentionSpec(1, 1, 8), FfnSpec(8 + 8 * (i % 2))) for i in range(60)]
    with pytest.raises(ValueError, match="at most 40 blocks"):
        architecture_chart(Architecture(8, tuple(deep)), WORKLOAD, "", "cpu")
