"""Folders and files named after splits, in the spellings that data sets have."""

import shutil

import numpy as np
import pytest
from media_fakes import task_file, write_pictures, write_scenes, write_tones
from PIL import Image
from text_fakes import reviews, tale, write_squad, write_table

from nas.tasks.base import SPLITS
from nas.tasks.base.checks import check_data, search_notes
from nas.tasks.base.split_names import split_named
from nas.tasks.registry import get_task


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def images(tmp_path, **options):
    options = {"name": "stripes", "kind": "images", "data": "all", **options}
    return get_task(task_file(tmp_path / "task.yaml", **options))


def sizes(task):
    return [len(task.split(name)) for name in SPLITS]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("val", "validation"),
        ("Valid", "validation"),
        ("DEV", "validation"),
        ("dev-set", "validation"),
        ("evaluation", "validation"),
        ("Training", "train"),
        ("train_set", "train"),
        ("testing", "test"),
        ("tst", "test"),
        ("TestData", "test"),
        ("trains", None),
        ("vale", None),
        ("contest", None),
        ("images", None),
    ],
)
def test_usual_names_in_any_case(name, split):
    assert split_named(name) == split


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "DEV", "Tst")])
def test_pictures_are_divided_by_folders(tmp_path, names):
    for seed, (name, n) in enumerate(zip(names, (10, 4, 3), strict=True)):
        write_pictures(tmp_path / "all" / name, n, seed=seed)
    assert sizes(images(tmp_path)) == [30, 12, 9]


def test_validation_is_cut_out_of_train_where_it_has_no_folder(tmp_path):
    write_pictures(tmp_path / "all" / "Train", 20)
    write_pictures(tmp_path / "all" / "Test", 4, seed=1)
    task = images(tmp_path)
    assert tuple(task.about()["classes"]) == ("across", "aslant", "down")
    found = sizes(task)
    assert found[2] == 12 and found[0] + found[1] == 60 and found[1] > 0


def test_two_names_of_one_split_are_refused_with_both(tmp_path):
    for name in ("train", "val", "valid"):
        write_pictures(tmp_path / "all" / name, 3)
    with pytest.raises(ValueError, match="has val and valid, which both mean the validation"):
        images(tmp_path)


def test_what_lies_beside_is_named(tmp_path):
    for name in ("train", "val", "test", "extra"):
        write_pictures(tmp_path / "all" / name, 8, seed=len(name))
    (tmp_path / "all" / "labels.csv").write_text("x")
    task = images(tmp_path)
    found = [line for line in check_data(task).warnings if line.startswith("not read: ")]
    assert len(found) == 1 and "extra/, labels.csv beside train, val, test" in found[0]
    assert found[0] in search_notes(task)
    assert sizes(task)[1] == 24


def test_a_class_called_train_is_a_class(tmp_path):
    write_pictures(tmp_path / "all", 20, classes=("across", "down"))
    (tmp_path / "all" / "down").rename(tmp_path / "all" / "train")
    task = images(tmp_path)
    assert tuple(task.about()["classes"]) == ("across", "train") and sum(sizes(task)) == 40


def test_train_that_may_be_either_is_asked_about(tmp_path):
    # Trains of two sorts beside cars and buses: or one split beside what is no data.
    for name in ("train/across", "train/down", "car", "bus"):
        write_pictures(tmp_path / "flat", 1, classes=("across",))
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        write_pictures(tmp_path / "all" / name, 20, seed=len(name), classes=("aslant",))
    with pytest.raises(ValueError, match="has train beside folders of other names: say split_f"):
        images(tmp_path)
    classes = images(tmp_path, split_folders=False).about()["classes"]
    assert tuple(classes) == ("bus", "car", "train")
    task = images(tmp_path, split_folders=True)
    assert tuple(task.about()["classes"]) == ("across", "down")
    assert any("bus/, car/ beside train" in line for line in search_notes(task))


def test_splits_without_classes_are_no_classes_by_themselves(tmp_path):
    write_pictures(tmp_path / "all", 6, classes=("across", "down"))
    (tmp_path / "all" / "across").rename(tmp_path / "all" / "Train")
    (tmp_path / "all" / "down").rename(tmp_path / "all" / "Test")
    with pytest.raises(ValueError, match="Test, Train, which are named after splits but hold no"):
        images(tmp_path)
    assert tuple(images(tmp_path, split_folders=False).about()["classes"]) == ("Test", "Train")


def test_splits_without_training_data_are_refused(tmp_path):
    for name in ("val", "test"):
        write_pictures(tmp_path / "all" / name, 3)
    with pytest.raises(ValueError, match="has test, val and no folder of training data"):
        images(tmp_path)
    with pytest.raises(ValueError, match="split_folders must be true or false, got 'maybe'"):
        images(tmp_path, split_folders="maybe")


def test_recordings_and_scenes_are_divided_too(tmp_path):
    for seed, name in enumerate(("training", "dev", "TEST")):
        write_tones(tmp_path / "tones" / name, 3, seed=seed)
        scenes = write_scenes(tmp_path / "scenes" / name, 6, seed=seed)
        scenes.joinpath("pictures").rename(scenes / "images")
        for side in ("images", "masks"):
            (tmp_path / side).mkdir(exist_ok=True)
            shutil.copytree(scenes / side, tmp_path / side / name)
    options = {"sample_rate": 8000, "duration_s": 0.4}
    made = task_file(tmp_path / "s.yaml", name="s", kind="speech", data="tones", **options)
    assert sizes(get_task(made)) == [9, 9, 9]
    classes = ["ground", "white", "red"]
    for data in ("scenes", {"images": "images", "masks": "masks"}):
        made = task_file(
            tmp_path / "m.yaml", name="m", kind="segmentation", data=data, classes=classes
        )
        assert sizes(get_task(made)) == [6, 6, 6]


def test_sides_must_have_the_same_splits(tmp_path):
    scenes = write_scenes(tmp_path / "one", 6)
    shutil.copytree(scenes / "pictures", tmp_path / "images" / "train")
    shutil.copytree(scenes / "masks", tmp_path / "masks")
    made = task_file(
        tmp_path / "m.yaml",
        name="m",
        kind="segmentation",
        data={"images": "images", "masks": "masks"},
        classes=["ground", "white", "red"],
    )
    with pytest.raises(ValueError, match="divided into the same splits on all sides"):
        get_task(made)


def test_files_are_divided_by_their_stems(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    pairs = reviews(90)
    for name, part in (("train", pairs[:60]), ("Val", pairs[60:75]), ("test", pairs[75:])):
        write_table(folder / f"{name}.csv", part)
    (folder / "README.md").write_text("about")
    task = get_task(task_file(tmp_path / "t.yaml", name="t", data="texts"))
    assert sizes(task) == [60, 15, 15]
    assert any("README.md beside" in line for line in check_data(task).warnings)
    write_table(folder / "valid.jsonl", pairs[:3])
    with pytest.raises(ValueError, match=r"has Val.csv and valid.jsonl, which both mean"):
        get_task(str(tmp_path / "t.yaml"))


def test_texts_and_questions_are_divided_by_their_stems(tmp_path):
    (tmp_path / "plays").mkdir()
    for seed, name in enumerate(("train", "valid", "test")):
        (tmp_path / "plays" / f"{name}.txt").write_text(tale(60, seed))
    options = {"kind": "language_modelling", "context_length": 16, "data": "plays"}
    options["block_length"] = 64
    task = get_task(task_file(tmp_path / "l.yaml", name="l", **options))
    assert not any(line.startswith("neighbours") for line in check_data(task).warnings)
    (tmp_path / "plays" / "valid.txt").unlink()
    (tmp_path / "plays" / "test.txt").rename(tmp_path / "plays" / "hamlet.txt")
    with pytest.raises(ValueError, match=r"has train.txt beside files of other names"):
        get_task(str(tmp_path / "l.yaml"))
    task = get_task(task_file(tmp_path / "l.yaml", name="l", split_folders=False, **options))
    assert sizes(task)[0] > 0
    (tmp_path / "facts").mkdir()
    for seed, name in enumerate(("train", "dev")):
        write_squad(tmp_path / "facts" / f"{name}.json", 40, seed=seed)
    made = task_file(tmp_path / "q.yaml", name="q", kind="question_answering", data="facts")
    assert all(n > 0 for n in sizes(get_task(made)))


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(abs(hash(path.parts[-3:]))).integers(0, 255, (4, 4))
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.mark.parametrize("names", [("train2017", "val2017"), ("Train_2012", "VAL_2012")])
def test_years_in_names_of_splits_are_no_matter(tmp_path, names):
    assert {split_named(name) for name in names} == {"train", "validation"}


@pytest.mark.parametrize("names", [("X_train", "X_test"), ("Train (1)", "Test"), ("test", "cat")])
def test_classes_that_look_like_splits_are_said(tmp_path, names):
    for name in names:
        for i in range(20):
            picture(tmp_path / "data" / name / f"{i}.png")
    (tmp_path / "t.yaml").write_text("name: t\nkind: images\ndata: data\n")
    notes = get_task(str(tmp_path / "t.yaml")).notes()
    looks_alike = [name for name in names if name != "cat"]
    assert any(all(name in line for name in looks_alike) for line in notes), notes
    (tmp_path / "t.yaml").write_text("name: t\nkind: images\ndata: data\nsplit_folders: false\n")
    assert not get_task(str(tmp_path / "t.yaml")).notes()


def test_splits_a_folder_further_down_are_named(tmp_path):
    for split in ("train", "test"):
        for name in "ab":
            for i in range(5):
                picture(tmp_path / "all" / "data" / split / name / f"{i}.png")
    (tmp_path / "t.yaml").write_text("name: t\nkind: images\ndata: all\n")
    with pytest.raises(ValueError, match="all/data holds test, train"):
        get_task(str(tmp_path / "t.yaml")).about()


def test_links_to_folders_are_not_passed_over_without_a_word(tmp_path):
    for name in "ab":
        for i in range(20):
            picture(tmp_path / "data" / name / f"{i}.png")
    (tmp_path / "more").mkdir()
    (tmp_path / "data" / "a" / "more").symlink_to(tmp_path / "more")
    (tmp_path / "t.yaml").write_text("name: t\nkind: images\ndata: data\n")
    notes = get_task(str(tmp_path / "t.yaml")).notes()
    assert any("links to folders are not followed" in line for line in notes), notes
