"""Pictures with boxes in COCO's and in YOLO's format: read, and checked entry by entry."""

import json

import numpy as np
import pytest
from media_fakes import png, task_file
from PIL import Image

from experiments.benchmarks.training.drawn_shapes import CLASSES, write_shapes
from nas.cli.main import main
from nas.tasks.base import IGNORED, SPLITS
from nas.tasks.base.checks import check_data
from nas.tasks.registry import get_task
from nas.tasks.vision.boxes import UNITS

N = 40
COCO = {"images": "pictures", "annotations": "boxes.json"}
YOLO = {"images": "pictures", "labels": "labels"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def shapes(tmp_path):
    return write_shapes(tmp_path, N, side=24, most=3, sizes=(6, 12))


def detection(folder, **options):
    options = {"name": "shapes", "kind": "detection", "data": COCO, **options}
    return get_task(task_file(folder / "task.yaml", **options))


def change(folder, edit):
    """Edit the JSON of boxes."""
    path = folder / "boxes.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def boxes_of(task):
    """Classes and boxes in shares of the picture, of every picture that has some."""
    found = []
    for name in SPLITS:
        for row in task.split(name).targets:
            real = row[row[:, 0] != IGNORED]
            if len(real):
                found.append([(int(box[0]), *(box[1:] / UNITS).round(4)) for box in real])
    return sorted(found)


@pytest.mark.parametrize("size", [None, [12, 48]])
def test_both_formats_give_the_drawn_boxes(tmp_path, shapes, size):
    options = {} if size is None else {"size": size}
    right = sorted(
        [(CLASSES.index(name), *(round(end / 24, 4) for end in box)) for name, box in picture]
        for picture in shapes
        if picture
    )
    by_format = [detection(tmp_path, **options)]
    by_format.append(detection(tmp_path, data=YOLO, classes=list(CLASSES), **options))
    for task in by_format:
        workload = task.workload(4)
        assert workload.kind == "object_detection" and workload.n_outputs == 3 + 5
        assert workload.input_shape == (3, *(size or (24, 24)))
        # One picture of eight has no box, and all splits have room for the most boxes.
        assert sum(len(task.split(name)) for name in SPLITS) == N
        assert len({task.split(name).targets.shape[1:] for name in SPLITS}) == 1
        np.testing.assert_allclose(
            np.concatenate(boxes_of(task)), np.concatenate(right), atol=2e-4
        )
        assert task.labels() == list(CLASSES)


def test_folders_of_splits_and_a_folder_of_both_parts_are_read(tmp_path):
    for split, n in (("train", 24), ("val", 8), ("test", 8)):
        made = write_shapes(
            tmp_path / "made" / split, n, seed=n + len(split), side=24, sizes=(6, 9)
        )
        for part, kind in (("images", "pictures"), ("labels", "labels")):
            target = tmp_path / "all" / part / split
            target.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "made" / split / kind).rename(target)
        assert len(made) == n
    task = detection(tmp_path, data="all", classes=list(CLASSES))
    assert [len(task.split(name)) for name in SPLITS] == [24, 8, 8]


def test_boxes_that_reach_beyond_are_cut_and_crowds_are_not_read(tmp_path, shapes):
    def edit(data):
        data["annotations"][0]["bbox"] = [-5, -8, 12, 16]
        data["annotations"][1]["iscrowd"] = 1
        data["categories"].reverse()

    change(tmp_path, edit)
    found = check_data(detection(tmp_path))
    assert not found.errors
    assert (
        "clipped: 1 boxes reach beyond their pictures, by up to 8 pixels, and are cut there"
        in (found.warnings)
    )
    assert any("1 annotations with iscrowd" in line for line in found.warnings)
    cut = [box for row in boxes_of(detection(tmp_path)) for box in row if box[1:3] == (0, 0)]
    assert (round(7 / 24, 4), round(8 / 24, 4)) in [box[3:] for box in cut]


def test_what_is_few_small_or_too_many_is_warned_of(tmp_path, shapes):
    task = detection(tmp_path, size=8, max_boxes=1, classes=[*CLASSES, "star"])
    lines = "\n".join(check_data(task).warnings)
    assert "rare: too few validation boxes of" in lines and "'star' (0)" in lines
    assert "of the training boxes have a side below 4 pixels in pictures of 8 x 8" in lines
    assert "boxes, and max_boxes is 1" in lines


def test_a_picture_in_two_splits_is_a_leak(tmp_path):
    for part in ("a", "b"):
        write_shapes(tmp_path / part, N, side=24, sizes=(6, 9))
    sides = {
        split: {"images": f"{part}/pictures", "annotations": f"{part}/boxes.json"}
        for split, part in (("train", "a"), ("validation", "b"))
    }
    options = {"name": "twice", "kind": "detection", **sides}
    task = get_task(task_file(tmp_path / "task.yaml", **options))
    assert any(line.startswith("leak: ") for line in check_data(task).warnings)


def test_a_turned_picture_has_boxes_as_people_see_it(tmp_path):
    write_shapes(tmp_path, N, side=24, sizes=(6, 9))
    pixels = np.zeros((24, 12, 3), np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "pictures" / "0000.png", exif=exif)
    with pytest.raises(
        ValueError, match=r"images\[0\] must have the height and width .*12 and 24"
    ):
        detection(tmp_path, size=24).workload(1)

    def edit(data):
        data["images"][0].update(height=12, width=24)
        data["annotations"] = [a for a in data["annotations"] if a["image_id"]]
        data["annotations"].append({"image_id": 0, "category_id": 1, "bbox": [18, 3, 6, 6]})

    change(tmp_path, edit)
    boxes = [box for row in boxes_of(detection(tmp_path, size=24)) for box in row]
    assert (0, 0.75, 0.25, 1.0, 0.75) in boxes


def annotation(index, **values):
    return lambda data: data["annotations"][index].update(values)


COCO_FAULTS = [
    (annotation(3, bbox=[30, 2, 4, 4]), r"annotations\[3\] must be in its picture of 24 x 24"),
    (annotation(3, bbox=[-9, 2, 9, 4]), r"annotations\[3\] must be in its picture"),
    (annotation(3, bbox=[3, 2, 0, 4]), r"annotations\[3\] must have a width and a height > 0"),
    (annotation(3, bbox=[3, 2, 5, -4]), r"a width and a height > 0, got 5 x -4 pixels"),
    (annotation(3, bbox=[3, 2, 4]), r"annotations\[3\] must have a bbox"),
    (annotation(3, bbox=[3, 2, 4, "x"]), r"annotations\[3\] must have a bbox"),
    (annotation(3, bbox=[3, float("nan"), 4, 4]), r"annotations\[3\] must have finite numbers"),
    (annotation(3, bbox=[3, 10**400, 4, 4]), r"annotations\[3\] must have a bbox"),
    (annotation(3, category_id=9), r"annotations\[3\] must have the category_id of an entry"),
    (annotation(3, image_id=999), r"annotations\[3\] must have the image_id of an entry"),
    (annotation(3, image_id="1"), r"annotations\[3\] must have a whole number as image_id"),
    (lambda d: d["images"][2].update(height=9), r"images\[2\] must have the height and width"),
    (
        lambda d: d["images"][2].update(file_name="../x.png"),
        r"images\[2\] must have the file_name",
    ),
    (lambda d: d["images"][2].update(file_name="no.png"), r"images\[2\] must have the file_name"),
    (lambda d: d["images"].append(d["images"][0]), r"an id and a file_name of its own"),
    (lambda d: d["categories"].append({"id": 1, "name": "x"}), r"categories\[3\] must have an id"),
    (lambda d: d.pop("categories"), r"boxes.json must be an object with the lists"),
    (lambda d: d.update(annotations=[]), r"must hold a box, and holds none"),
]


@pytest.mark.parametrize(("edit", "message"), COCO_FAULTS)
def test_a_fault_of_coco_names_its_entry(tmp_path, shapes, edit, message):
    change(tmp_path, edit)
    with pytest.raises(ValueError, match=message) as caught:
        detection(tmp_path).workload(1)
    assert "\n" not in str(caught.value)


YOLO_FAULTS = [
    ("0 0.5 0.5 0.1 0.1\n3 0.5 0.5 0.1 0.1\n", r"0002.txt:2 must have a class in 0..2"),
    ("circle 0.5 0.5 0.1 0.1\n", r"0002.txt:1 must have a class in 0..2"),
    ("0 0.5 0.5 0.1\n", r"0002.txt:1 must be a class and four numbers"),
    ("0 0.1 0.1 0.2 0.1 0.2 0.2\n", r"0002.txt:1 must be a class and four numbers .* got 7"),
    ("\n0 0.5 a 0.1 0.1\n", r"0002.txt:2 must have four numbers behind its class"),
    ("0 0.5 nan 0.1 0.1\n", r"0002.txt:1 must have finite numbers"),
    ("0 1.5 0.5 0.1 0.1\n", r"0002.txt:1 must be in its picture of 24 x 24 pixels"),
    ("0 0.5 0.5 0 0.1\n", r"0002.txt:1 must have a width and a height > 0"),
]


@pytest.mark.parametrize(("text", "message"), YOLO_FAULTS)
def test_a_fault_of_yolo_names_its_line(tmp_path, shapes, text, message):
    (tmp_path / "labels" / "0002.txt").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        detection(tmp_path, data=YOLO, classes=list(CLASSES)).workload(1)
    assert "\n" not in str(caught.value)


def test_labels_without_a_picture_are_wrong_and_pictures_without_labels_are_not(tmp_path, shapes):
    for index in range(4):
        (tmp_path / "labels" / f"000{index}.txt").unlink()
    (tmp_path / "labels" / "classes.txt").write_text("\n".join(CLASSES))
    task = detection(tmp_path, data=YOLO, classes=list(CLASSES))
    assert sum(len(task.split(name)) for name in SPLITS) == N
    (tmp_path / "labels" / "other.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(ValueError, match=r"other.txt must have a picture of that name"):
        detection(tmp_path, data=YOLO, classes=list(CLASSES)).workload(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "pictures"}, r"data must be given as {images: FOLDER, annotations: FILE}"),
        ({"data": YOLO}, "classes must be named in the task file"),
        ({"classes": ["circle"]}, r"annotations\[\d+\] must be of a class in classes \(circle\)"),
        ({"classes": ["a", "a"]}, "classes must be distinct names"),
        ({"classes": []}, "classes must be a list of names"),
        ({"metric": "ap"}, "metric must be map or map50, got 'ap'"),
        ({"max_boxes": 0}, "max_boxes must be an integer in 1"),
        ({"max_boxes": 2000}, "max_boxes must be at most 1000, got 2000"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path, shapes, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        detection(tmp_path, **options).workload(1)
    assert "\n" not in str(caught.value)


def test_all_faults_are_said_at_once(tmp_path, shapes, capsys):
    change(tmp_path, annotation(3, bbox=[30, 2, 4, 4]))
    change(tmp_path, annotation(4, category_id=9))
    (tmp_path / "pictures" / "0005.png").write_bytes(png(np.zeros((1, 1, 3), np.uint8))[:20])
    path = task_file(tmp_path / "task.yaml", name="shapes", kind="detection", data=COCO)
    assert main(["check-data", path, "--json"]) == 2
    errors = json.loads(capsys.readouterr().out)["errors"]
    assert len(errors) == 3
    for place in ("annotations[3]", "annotations[4]", "0005.png"):
        assert sum(place in line for line in errors) == 1


def test_a_missing_package_names_what_to_install(tmp_path, shapes, monkeypatch):
    from nas.tasks.vision import box_score

    monkeypatch.setattr(box_score, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'joulenas\[detection\]'"):
        detection(tmp_path)
