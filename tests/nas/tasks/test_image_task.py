"""Pictures of a user: every form they come in, kept once, and what is wrong with them."""

import gzip
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from media_fakes import png, stripes, task_file, write_pictures
from PIL import Image

from nas.tasks.base import SPLITS, cache
from nas.tasks.base.problems import DataError
from nas.tasks.registry import get_task
from nas.tasks.vision.picture_reader import PictureOptions, PictureReader
from nas.tasks.vision.pictures import MAX_PIXELS
from nas.training.config import TrainingConfig
from nas.training.fit import Setting, fit
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec

KINDS = ("across", "aslant", "down")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def images(tmp_path, **options):
    options = {"name": "stripes", "kind": "images", **options}
    return get_task(task_file(tmp_path / "task.yaml", **options))


def decode(raw, channels, size):
    return PictureReader(PictureOptions(size=size, channels=channels)).read(raw)


def rows(split):
    return {row.tobytes() for row in split.inputs}


def test_a_folder_is_divided_by_content(tmp_path):
    write_pictures(tmp_path / "all", 40)
    task = images(tmp_path, data="all")
    splits = {name: task.split(name) for name in SPLITS}
    sizes = {name: len(split) for name, split in splits.items()}
    assert sum(sizes.values()) == 120 and sizes["train"] > 70
    assert 8 <= sizes["validation"] <= 30 and 8 <= sizes["test"] <= 30
    assert not rows(splits["train"]) & (rows(splits["validation"]) | rows(splits["test"]))
    assert task.workload(8).input_shape == (3, 12, 12) and task.workload(8).n_classes == 3
    assert tuple(task.about()["classes"]) == KINDS
    # A copy of a picture goes where the picture is, and nothing else moves.
    for path in sorted((tmp_path / "all" / "down").iterdir()):
        (path.parent / f"copy-{path.name}").write_bytes(path.read_bytes())
    again = images(tmp_path, data="all")
    assert sum(len(again.split(name)) for name in SPLITS) == 160
    assert again.about()["repeats"]["also_in_train"] == {"validation": 0, "test": 0}
    for name in SPLITS:
        assert len(rows(again.split(name))) == sizes[name]


def test_inputs_are_standardised_by_the_training_split(tmp_path):
    write_pictures(tmp_path / "all", 20)
    train = images(tmp_path, data="all").split("train")
    assert train.inputs.dtype == np.float32 and train.targets.dtype == np.int64
    np.testing.assert_allclose(train.inputs.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(train.inputs.std((0, 2, 3)), 1, atol=1e-5)


def test_folders_of_splits_are_taken_as_they_are_and_repeats_counted(tmp_path):
    write_pictures(tmp_path / "all" / "train", 12, seed=0)
    write_pictures(tmp_path / "all" / "test", 4, seed=0)
    task = images(tmp_path, data="all")
    assert len(task.split("test")) == 12
    assert len(task.split("train")) + len(task.split("validation")) == 36
    assert len(task.split("validation")) > 0
    # The same seed drew the first class's pictures of the test split, too.
    assert 0 < task.about()["repeats"]["also_in_train"]["test"] <= 4


def arrays(n, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return np.stack([stripes(KINDS[label], rng) for label in labels]), labels


def as_npz(folder, pictures, labels):
    np.savez(folder / "a.npz", x=pictures, y=labels)
    return {"data": "a.npz", "image_key": "x", "label_key": "y"}


def as_npy(folder, pictures, labels):
    np.save(folder / "x.npy", pictures.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    np.save(folder / "y.npy", np.array(KINDS)[labels])
    return {"train": {"images": "x.npy", "labels": "y.npy"}}


def as_idx(folder, pictures, labels):
    for name, values in (("x.gz", pictures[..., 0]), ("y.gz", labels)):
        head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
        (folder / name).write_bytes(gzip.compress(head + values.astype(np.uint8).tobytes()))
    return {"data": {"images": "x.gz", "labels": "y.gz"}}


def as_parquet(folder, pictures, labels):
    cells = [{"bytes": png(picture), "path": None} for picture in pictures]
    table = pa.table({"image": cells, "label": labels})
    pq.write_table(table, folder / "a.parquet", row_group_size=16)
    return {"data": "a.parquet"}


@pytest.mark.parametrize("form", [as_npz, as_npy, as_idx, as_parquet])
def test_arrays_and_tables_hold_the_same_pictures(tmp_path, form):
    pictures, labels = arrays(60)
    task = images(tmp_path, **form(tmp_path, pictures, labels))
    channels = 1 if form is as_idx else 3
    assert task.workload(4).input_shape == (channels, 12, 12)
    found = [task.split(name) for name in SPLITS]
    assert sum(map(len, found)) == 60
    expected = KINDS if form is as_npy else (0, 1, 2)
    assert tuple(task.about()["classes"]) == expected
    # Up to one affine map for each channel these are the pictures that went in.
    inputs = np.concatenate([split.inputs for split in found])
    targets = np.concatenate([split.targets for split in found])
    first = pictures[0].transpose(2, 0, 1)[:channels].astype(float)
    flat = (first - first.mean((1, 2), keepdims=True)).ravel()
    centred = (inputs - inputs.mean((2, 3), keepdims=True)).reshape(60, -1)
    alike = centred @ flat / np.linalg.norm(centred, axis=1) / np.linalg.norm(flat)
    assert alike.max() > 0.999 and targets[alike.argmax()] == labels[0]


def test_pictures_are_brought_to_one_size_and_to_grey(tmp_path):
    write_pictures(tmp_path / "all", 8)
    rng = np.random.default_rng(5)
    (tmp_path / "all" / "down" / "wide.png").write_bytes(png(stripes("down", rng, 20, 30)))
    with pytest.raises(DataError, match=r"wide.png must have the shape \(3, 12, 12\)"):
        images(tmp_path, data="all").workload(1)
    task = images(tmp_path, data="all", size=[6, 8], channels=1)
    assert task.workload(1).input_shape == (1, 6, 8)


def test_nothing_is_read_twice_until_a_file_changes(tmp_path, monkeypatch):
    write_pictures(tmp_path / "all", 8)
    first = images(tmp_path, data="all").split("train")
    assert isinstance(first.inputs, np.memmap)
    monkeypatch.setattr(
        "nas.tasks.vision.picture_reader.read_bytes", lambda *_: pytest.fail("read again")
    )
    assert len(images(tmp_path, data="all").split("train")) == len(first)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_pictures(tmp_path / "all", 1, seed=9)
    assert rows(images(tmp_path, data="all").split("train")) != rows(first)


def test_what_is_kept_is_whole_or_absent(tmp_path):
    def fail(folder):
        np.save(folder / "a.npy", np.zeros(3))
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        cache.cached("some", fail)
    assert list(cache.cache_folder().iterdir()) == []
    made = cache.cached("some", lambda folder: np.save(folder / "a.npy", np.ones(2)) or {})
    made.array("a")[0] = 5
    assert cache.cached("some", fail).array("a").tolist() == [1, 1]


def bomb(side):
    """A picture of a few hundred bytes that claims ``side`` by ``side`` pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"no picture", "must be a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "must be a picture"),
        (png(stripes("down", np.random.default_rng(0)))[:-90], "must be a whole picture"),
        (bomb(60_000), f"at most {MAX_PIXELS} pixels"),
        (bomb(9_000), f"at most {MAX_PIXELS} pixels, got 9000x9000"),
    ],
)
def test_pictures_that_are_none_or_too_large(raw, message):
    with pytest.raises(ValueError, match=message):
        decode(raw, 3, (4, 4))


def test_sixteen_bits_and_turned_pictures(tmp_path):
    deep = Image.fromarray(np.full((4, 4), 40_000, np.uint16))
    deep.save(tmp_path / "deep.png")
    assert decode((tmp_path / "deep.png").read_bytes(), 1, None)[0, 0, 0] == np.float32(
        40_000 / 257
    )
    turned = Image.fromarray(np.zeros((4, 8, 3), np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert decode((tmp_path / "turned.jpg").read_bytes(), 3, None).shape == (3, 8, 4)


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    folder = write_pictures(tmp_path / "all", 6)
    (folder / "down" / "empty.png").touch()
    (folder / "across" / "text.png").write_text("not a picture")
    (folder / "none").mkdir()
    with pytest.raises(DataError) as caught:
        images(tmp_path, data="all").workload(1)
    lines = caught.value.lines
    assert len(lines) == 3 and str(caught.value).endswith("(and 2 more)")
    assert any("none must hold files" in line for line in lines)
    assert any("empty.png must have 1 to" in line and line.endswith("got 0") for line in lines)
    assert any("text.png must be a picture" in line for line in lines)
    assert list(cache.cache_folder().iterdir()) == []


def nan(folder):
    pictures, labels = arrays(12)
    values = pictures.astype(np.float32)
    values[7, 0, 0, 0] = np.nan
    np.savez(folder / "a.npz", images=values, labels=labels)
    return {"data": "a.npz"}


def objects(folder):
    np.save(folder / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(folder / "y.npy", np.zeros(1, int))
    return {"data": {"images": "x.npy", "labels": "y.npy"}}


def lengths(folder):
    np.savez(folder / "a.npz", images=np.zeros((4, 3, 3)), labels=np.zeros(3, int))
    return {"data": "a.npz"}


def short_idx(folder):
    (folder / "x.idx").write_bytes(struct.pack(">HBB3I", 0, 8, 3, 5, 4, 4) + bytes(79))
    (folder / "y.idx").write_bytes(struct.pack(">HBBI", 0, 8, 1, 5) + bytes(5))
    return {"data": {"images": "x.idx", "labels": "y.idx"}}


def no_column(folder):
    pq.write_table(pa.table({"label": [1, 2]}), folder / "a.parquet")
    return {"data": "a.parquet"}


def no_rows(folder):
    pq.write_table(
        pa.table({"image": pa.array([], pa.binary()), "label": []}), folder / "a.parquet"
    )
    return {"data": "a.parquet"}


def no_label(folder):
    cells = [png(np.zeros((3, 3, 3), np.uint8))] * 2
    pq.write_table(pa.table({"image": cells, "label": [1.5, None]}), folder / "a.parquet")
    return {"data": "a.parquet"}


def one_class(folder):
    write_pictures(folder / "all", 40, classes=("down",))
    return {"data": "all"}


def unknown_class(folder):
    write_pictures(folder / "all" / "train", 6, classes=("down", "across"))
    write_pictures(folder / "all" / "test", 2)
    return {"data": "all"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nan, r"a.npz, image 7, must be finite"),
        (objects, r"x.npy must hold numbers or texts, got Python objects"),
        (lengths, r"labels of .*a.npz must be 4 whole numbers"),
        (short_idx, r"x.idx must hold 80 bytes of values"),
        (no_column, r"a.parquet must have a column 'image', got label"),
        (no_rows, r"the data must have images, and have none"),
        (no_label, r"a.parquet, row 0, must have a label .* got 1.5"),
        (one_class, r"two classes or more, got down"),
        (unknown_class, r"aslant.000.png must have a label of the training split .* 'aslant'"),
        (lambda _: {"data": "nowhere"}, r"nowhere must be readable"),
        (lambda _: {"data": "nowhere.npz"}, r"nowhere.npz must be readable"),
        (lambda _: {"data": "a", "train": "b"}, r"one of them"),
        (lambda _: {"data": "a", "test": "b"}, r"got data and test"),
        (lambda _: {"data": "a", "size": 0}, r"size must be pixels in 1..4096"),
        (lambda _: {"data": "a", "channels": 2}, r"channels must be 1 \(grey\) or 3"),
        (lambda _: {"data": "a", "test_share": 1.5}, r"test_share must be a number in"),
        (lambda _: {"data": "a", "colour": 1}, r"unknown key 'colour'"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path, make, message):
    with pytest.raises(ValueError, match=message) as caught:
        images(tmp_path, **make(tmp_path)).workload(1)
    assert "\n" not in str(caught.value)


def test_pictures_are_learnt(tmp_path):
    write_pictures(tmp_path / "all", 60)
    task = images(tmp_path, data="all", channels=1)
    layer = LayerSpec(AttentionSpec(2, 1, 8), FfnSpec(32))
    fitted = fit(
        Architecture(16, (layer,), patch_size=4),
        Setting(task, task.workload(32), seed=0),
        TrainingConfig(epochs=12, batch_size=16, learning_rate=5e-3),
    )
    assert fitted.validation.value > 0.8
