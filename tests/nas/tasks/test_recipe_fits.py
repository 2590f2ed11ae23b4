"""Recipes beside tasks: refused where they are for others, else fitted, with a word about time."""

import numpy as np
import pytest
from media_fakes import task_file, write_scenes, write_tones
from search_fakes import report
from text_fakes import reviews, tale, write_table

from nas.cli.main import main
from nas.searching.expected import Load, expected
from nas.searching.expected_here import expected_line
from nas.searching.fitting import check_fits, for_task
from nas.searching.recipe_names import recipe_names
from nas.searching.recipes import get_recipe, recipe_notes
from nas.searching.task_kinds import kind_of
from nas.tasks.registry import get_task
from search_spaces.compression import probing
from search_spaces.space import SearchSpace
from search_spaces.workload import Workload


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def all_kernels(monkeypatch):
    """A device with a kernel for every choice: probing a true one compiles for half a minute."""

    def probe(device, *, choices, **_):
        return report(**{name.replace(":", "_"): "real" for name in choices})

    monkeypatch.setattr(probing, "probe", probe)


def pictures(folder, height=28, width=28, n=200, name="m"):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 255, (n, height, width), dtype=np.uint8)
    np.savez(folder / f"{name}.npz", images=values, labels=rng.integers(0, 2, n))
    return str(task_file(folder / f"{name}.yaml", name=name, kind="images", data=f"{name}.npz"))


def recordings(folder):
    write_tones(folder / "tones", 20)
    options = {"sample_rate": 8000, "duration_s": 0.4, "data": "tones"}
    return str(task_file(folder / "s.yaml", name="s", kind="speech", **options))


def texts(folder):
    write_table(folder / "t.csv", reviews(120))
    return str(task_file(folder / "t.yaml", name="t", data="t.csv"))


def passages(folder):
    (folder / "l.txt").write_text(tale(600))
    options = {"kind": "language_modelling", "data": "l.txt", "context_length": 16}
    return str(task_file(folder / "l.yaml", name="l", block_length=256, **options))


def scenes(folder):
    write_scenes(folder, 40, side=16)
    data, classes = {"images": "pictures", "masks": "masks"}, ["a", "b", "c"]
    return str(task_file(folder / "g.yaml", name="g", kind="segmentation", data=data,
                         classes=classes))  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "make", "kind", "way_out"),
    [
        ("text", pictures, "images", "nas search images or quickstart"),
        ("speech", pictures, "images", "nas search images or quickstart"),
        ("translation", pictures, "images", "nas search images"),
        ("images", recordings, "speech", "nas search speech"),
        ("images", texts, "text_classification", "nas search text"),
        ("text", passages, "language_modelling", "nas search language-modelling"),
        ("images", scenes, "segmentation", "nas search segmentation"),
        ("question-answering", texts, "text_classification", "nas search text"),
    ],
)
def test_a_recipe_for_other_tasks_is_refused_before_any_work(
    tmp_path, capsys, recipe, make, kind, way_out
):
    task = make(tmp_path)
    run = tmp_path / "run"
    assert main(["search", recipe, "--task", task, "--trials", "1", "--run", str(run)]) == 2
    said = capsys.readouterr().err.strip()
    assert f"recipe {recipe} is for tasks of kind " in said
    assert f"is of kind {kind}: use {way_out}" in said and len(said.splitlines()) == 1
    assert not run.exists()


def test_every_recipe_fits_some_kind(capsys):
    assert {"images", "speech", "text", "quickstart"} <= set(recipe_names())
    with pytest.raises(SystemExit):
        main(["search", "--help"])
    # A line may end after a hyphen.
    shown = "".join(capsys.readouterr().out.split())
    assert f"recipe:{','.join(recipe_names())}" in shown
    assert kind_of(get_task("digits")) == "images"
    assert get_recipe("quickstart", device="cpu").space.name == "digits-tiny"
    assert recipe_notes("quickstart", get_recipe("quickstart", device="cpu")) == []


@pytest.mark.parametrize(
    ("height", "width"), [(28, 28), (30, 30), (27, 27), (32, 48), (96, 96), (31, 31), (20, 60)]
)
def test_patches_and_resolutions_are_those_that_divide(tmp_path, height, width):
    task = pictures(tmp_path, height, width, n=60)
    config = get_recipe("images", device="cpu", task=task)
    workload = get_task(task).workload(8)
    check_fits(config.space, workload)
    assert all(height % p == width % p == 0 for p in config.space.values("patch_size"))
    notes = recipe_notes("images", config)
    if (height, width) == (28, 28):
        assert any("patch_size [2, 4] in place of [2, 4, 8]" in line for line in notes)


def test_pictures_that_nothing_divides_are_refused_with_a_size(tmp_path):
    task = pictures(tmp_path, 37, 41, n=60)
    with pytest.raises(ValueError, match=r"patch_size must divide .* 37x41 .*size: 40"):
        get_recipe("images", device="cpu", task=task)


def test_texts_shorter_than_resolutions_and_recordings_of_any_length(tmp_path):
    config = get_recipe("text", device="cpu", task=texts(tmp_path))
    assert max(r for r in config.space.values("resolution") if r) < 40
    config = get_recipe("speech", device="cpu", task=recordings(tmp_path))
    check_fits(config.space, get_task(config.task).workload(8))
    workload = Workload("l", "language_modelling", (16,), 9, 2, vocab_size=9)
    assert for_task(config.space, workload).values("patch_size") == (1,)


def test_a_space_that_does_not_fit_is_refused_with_what_would(tmp_path, capsys):
    space = tmp_path / "space.yaml"
    space.write_text(
        "{name: own, d_model: [16], depth: [1], n_heads: [2], n_kv_heads: [1], ffn_ratio: [1], "
        "patch_size: [4, 8], resolution: [16, null]}"
    )
    task, run = pictures(tmp_path), tmp_path / "run"
    words = ["search", "--task", task, "--space", str(space), "--trials", "1", "--run", str(run)]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "space own does not fit task m, which is image classification of 28x28 pixels" in said
    assert "patch_size: [4]" in said and "would fit" in said
    assert not run.exists()
    words[2] = texts(tmp_path)
    assert main(words) == 2
    assert "text classification of 40 tokens" in capsys.readouterr().err
    words[4] = "translation-base"
    assert main(words) == 2
    assert "architecture must be a single stack" in capsys.readouterr().err


def test_long_trainings_are_cut_down_by_the_same_on_every_machine(tmp_path):
    task = pictures(tmp_path, 32, 32, n=1500)
    config = get_recipe("images", device="cpu", task=task)
    load = Load.of(get_task(task), config.batch_size)
    assert expected(config, load).mean_s <= 60
    assert get_recipe("images", device="cpu", task=task) == config
    (line,) = recipe_notes("images", config)
    assert "takes a minute or less on two cores (estimate)" in line and "in place of" in line
    # Fewer epochs leave more of the space.
    short = get_recipe("images", device="cpu", task=task, epochs=2)
    assert not any("epochs in place" in x for x in recipe_notes("images", short, epochs=2))
    assert short.training.epochs == 2 and short.space.size() > config.space.size()
    # More data than any space of the recipe is fast enough for: epochs fall as well.
    many = get_recipe("images", device="cpu", task=pictures(tmp_path, 32, 32, 20_000, "n"))
    assert many.training.epochs < config.training.epochs and many.space.size() > 100
    own = SearchSpace.from_dict(config.space.to_dict() | {"name": "own", "d_model": [192, 256]})
    assert get_recipe("images", device="cpu", task=task, space=own).space.values("d_model") == (
        192,
        256,
    )


def test_the_expected_time_is_an_estimate_of_both_ends(tmp_path):
    config = get_recipe("text", device="cpu", task=texts(tmp_path))
    line = expected_line(config)
    assert "a trial" in line and "(estimate:" in line
    load = Load.of(get_task(config.task), config.batch_size)
    found = expected(config, load)
    assert 0 < found.least_s < found.mean_s < found.most_s
    assert found.scaled(2).mean_s == pytest.approx(2 * found.mean_s)
