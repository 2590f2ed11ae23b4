"""Pictures of any depth, with transparency, in many formats: nothing is lost without a word."""

import io

import numpy as np
import pytest
from media_fakes import png, stripes, task_file, write_pictures, write_scenes
from PIL import Image, features

from nas.core.files import write_json
from nas.exporting.artifact import load_artifact
from nas.tasks.base import SPLITS
from nas.tasks.base.artifact_files import artifact_files_of
from nas.tasks.base.checks import check_data, search_notes
from nas.tasks.registry import get_task
from nas.tasks.vision.picture_reader import PictureOptions, PictureReader
from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD, save_weights
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.build import build

SMALL = Architecture(8, (LayerSpec(AttentionSpec(1, 1, 8), FfnSpec(8)),), patch_size=4)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def images(tmp_path, **options):
    options = {"name": "t", "kind": "images", "data": "p", "channels": 1, **options}
    return get_task(task_file(tmp_path / "t.yaml", **options))


def saved(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def read(raw, **options):
    return PictureReader(PictureOptions(**{"channels": 1, **options})).read(raw)


def write_all(folder, make, n=30, ending="png"):
    rng = np.random.default_rng(0)
    for kind in (0, 1):
        (folder / str(kind)).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            (folder / str(kind) / f"{i}.{ending}").write_bytes(make(kind, rng))
    return folder


def ramp(kind, rng, top):
    values = np.tile(np.linspace(0, top, 16), (16, 1)) + rng.normal(0, top / 50, (16, 16))
    return np.clip(values.T if kind else values, 0, top)


FORMS = [("I;16", "PNG"), ("I;16", "TIFF"), ("I;16B", "TIFF"), ("I", "TIFF"), ("F", "TIFF")]


@pytest.mark.parametrize(("mode", "form"), [*FORMS, ("I;16", "PPM")])
def test_every_level_of_deep_pictures_is_kept(mode, form):
    levels = np.arange(4096).reshape(64, 64)
    dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}[mode]
    values = read(saved(Image.fromarray(levels.astype(dtype)), form))
    assert values.shape == (1, 64, 64) and len(np.unique(values)) == 4096
    # In order, and in proportion.
    np.testing.assert_allclose(values[0] / values.max(), levels / 4095, atol=1e-6)
    assert read(saved(Image.fromarray(levels.astype(dtype)), form), channels=3).shape[0] == 3


def test_sixteen_bits_share_the_scale_of_eight():
    deep = read(saved(Image.fromarray(np.full((4, 4), 65_535, np.uint16))))
    flat = read(saved(Image.fromarray(np.full((4, 4), 255, np.uint8))))
    assert deep.max() == flat.max() == 255


def test_a_folder_of_both_depths_keeps_both(tmp_path):
    write_all(
        tmp_path / "p", lambda k, rng: saved(Image.fromarray(ramp(k, rng, 255).astype("u1")))
    )
    more = write_all(
        tmp_path / "q", lambda k, rng: saved(Image.fromarray(ramp(k, rng, 900).astype("<u2")))
    )
    for path in sorted(more.rglob("*.png")):
        path.rename(tmp_path / "p" / path.parent.name / f"deep-{path.name}")
    task = images(tmp_path)
    levels = [len(np.unique(row)) for name in SPLITS for row in task.split(name).inputs]
    # Of 256 pixels the deep ones hardly repeat a level; eight bits of 900 of 65,535 would be 4.
    assert len(levels) == 120 and min(levels) > 100
    (line,) = [line for line in search_notes(task) if line.startswith("depth: ")]
    assert "60 pictures are of 16 bits: their full range is kept" in line


def test_levels_may_be_stretched(tmp_path):
    dim = np.linspace(1000, 1200, 400).reshape(20, 20).astype(np.uint16)
    dim[0, 0] = 65_535
    full, stretched = (read(saved(Image.fromarray(dim)), levels=x) for x in ("full", "percentile"))
    assert np.median(full) < 5 and 100 < np.median(stretched) < 155
    assert stretched.min() == 0 and stretched.max() == 255
    write_all(
        tmp_path / "p", lambda k, rng: saved(Image.fromarray(ramp(k, rng, 900).astype("<u2")))
    )
    task = images(tmp_path, levels="percentile")
    assert any("each is stretched between its perc" in line for line in search_notes(task))
    with pytest.raises(ValueError, match="levels must be full or percentile, got 'none'"):
        images(tmp_path, levels="none")


def shape_in_alpha(kind, rng, colour=0, mode="RGBA"):
    image = Image.new("LA", (16, 16), colour)
    image.putalpha(Image.fromarray(ramp(kind, rng, 200).astype(np.uint8)))
    return saved(image.convert(mode))


@pytest.mark.parametrize(("colour", "ground"), [(0, "white"), (255, "black"), (90, "white")])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_shapes_in_the_alpha_channel_are_seen(tmp_path, colour, ground, mode):
    write_all(tmp_path / "p", lambda k, rng: shape_in_alpha(k, rng, colour, mode))
    task = images(tmp_path)
    found = check_data(task)
    assert not found.errors
    assert any(f"60 pictures are laid on {ground}" in line for line in found.warnings)
    assert all(np.ptp(row) > 1 for row in task.split("train").inputs)


def test_a_named_ground_stays_and_a_better_one_is_said(tmp_path):
    write_all(tmp_path / "p", lambda k, rng: shape_in_alpha(k, rng, 255))
    found = check_data(images(tmp_path, ground="white"))
    cause, line = found.errors
    assert "nothing is seen on white; ground: black shows more" in cause
    assert "all 60 are read as the same values, 255 everywhere" in line
    # Two that are seen make it a task, with a word about the rest.
    rng = np.random.default_rng(1)
    for kind in (0, 1):
        for i in range(20):
            (tmp_path / "p" / str(kind) / f"seen{i}.png").write_bytes(shape_in_alpha(kind, rng))
    found = check_data(images(tmp_path, ground="white"))
    assert any("60 transparent pictures nothing is seen on white; ground: bl" in line
               for line in found.warnings)  # fmt: skip
    assert read(shape_in_alpha(0, rng), ground=[10, 20, 30], channels=3).max() <= 30
    with pytest.raises(ValueError, match="ground must be white, black, grey, a grey level"):
        images(tmp_path, ground="transparent")


def test_palettes_cmyk_and_turned_pictures():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 200, 200])
    palette.putpixel((0, 0), 0)
    raw = saved(palette, transparency=0)
    assert read(raw)[0, 0, 0] == 255 and read(raw)[0, 1, 1] == 200
    assert read(raw, ground="black")[0, 0, 0] == 0
    red = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    assert read(saved(red, "TIFF"), channels=3)[:, 0, 0].tolist() == [255, 0, 0]
    turned = Image.fromarray(np.arange(8, dtype=np.uint16).reshape(2, 4))
    exif = turned.getexif()
    exif[0x0112] = 6
    assert read(saved(turned, "PNG", exif=exif)).shape == (1, 4, 2)


def test_first_frames_are_read_and_said():
    frames = [Image.new("L", (4, 4), grey) for grey in (10, 200)]
    for form in ("GIF", "TIFF"):
        raw = saved(frames[0], form, save_all=True, append_images=frames[1:])
        reader = PictureReader(PictureOptions(channels=1))
        assert (reader.read(raw) == 10).all()
        assert "1 files have several frames or pages" in reader.notes(reader.about())[-1]


def test_what_is_not_read_is_counted_by_ending(tmp_path):
    write_pictures(tmp_path / "p", 20)
    for i in range(7):
        (tmp_path / "p" / "down" / f"{i}.heic").write_bytes(b"x")
    (tmp_path / "p" / "down" / "noending").write_bytes(b"x")
    (tmp_path / "p" / "down" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "p" / "down" / ".hidden.png").write_bytes(b"x")
    (tmp_path / "p" / "across" / "_MG_1.png").write_bytes(b"x")
    (tmp_path / "p" / "loose.png").write_bytes(b"x")
    found = [line for line in search_notes(images(tmp_path)) if line.startswith("not read: ")]
    assert len(found) == 4
    assert "7 files ending in .heic" in found[0] and "down/0.heic" in found[0]
    assert "convert them" in found[0]
    assert any("1 file without an ending" in line for line in found)
    assert any("names begin with _" in line for line in found)
    assert any("in no folder named after a class" in line and "loose" in line for line in found)


def test_all_that_pillow_can_open_safely_is_read(tmp_path):
    rng = np.random.default_rng(0)
    forms = {"jfif": "JPEG", "jpe": "JPEG", "tga": "TGA", "jp2": "JPEG2000", "webp": "WEBP"}
    if features.check("avif"):
        forms["avif"] = "AVIF"
    for kind in ("across", "down"):
        (tmp_path / "p" / kind).mkdir(parents=True)
        for i in range(10):
            for ending, form in forms.items():
                picture = Image.fromarray(stripes(kind, rng))
                (tmp_path / "p" / kind / f"{i}.{ending}").write_bytes(saved(picture, form))
    task = images(tmp_path)
    assert sum(len(task.split(name)) for name in SPLITS) == 20 * len(forms)
    assert not [line for line in search_notes(task) if line.startswith("not read")]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float16, np.float64, bool])
def test_arrays_of_any_number_keep_their_levels(tmp_path, dtype):
    rng = np.random.default_rng(0)
    pictures = np.stack([ramp(i % 2, rng, 900) for i in range(60)])
    values = (pictures > 400) if dtype is bool else pictures.astype(dtype)
    if dtype is np.float64:
        # Such as radiances: small numbers are no constants.
        values = values * 1e-9
    np.savez(tmp_path / "a.npz", images=values, labels=np.arange(60) % 2)
    task = images(tmp_path, data="a.npz")
    inputs = np.concatenate([task.split(name).inputs for name in SPLITS])
    assert 0.8 < inputs.std() < 1.2
    # Up to the rounding of what is nearly equal.
    assert len(np.unique(inputs)) > 0.999 * len(np.unique(values.astype(np.float32)))


@pytest.mark.parametrize("form", ["deep", "float", "sized"])
def test_masks_stay_whole_numbers_beside_deep_pictures(tmp_path, form):
    write_scenes(tmp_path, 30)
    for path in sorted((tmp_path / "pictures").iterdir()):
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 100
        Image.fromarray(grey).save(path)
    for path in sorted((tmp_path / "masks").iterdir()):
        mask = np.asarray(Image.open(path))
        dtype, ending = (np.float32, ".tiff") if form == "float" else (np.uint16, ".png")
        path.unlink()
        Image.fromarray(mask.astype(dtype)).save(path.with_suffix(ending))
    options = {"size": 8} if form == "sized" else {}
    task = get_task(
        task_file(
            tmp_path / "m.yaml",
            name="m",
            kind="segmentation",
            data={"images": "pictures", "masks": "masks"},
            classes=["ground", "white", "red"],
            channels=1,
            **options,
        )
    )
    targets = task.split("train").targets
    assert targets.dtype == np.int64 and set(np.unique(targets)) == {0, 1, 2}
    assert len(np.unique(task.split("train").inputs[0])) > 40


def save_artifact(folder, task):
    folder.mkdir()
    workload = task.workload(4)
    write_json(folder / ARCHITECTURE, SMALL.to_dict())
    write_json(folder / WORKLOAD, workload.to_dict())
    network = build(SMALL, workload)
    save_weights(network, folder / WEIGHTS)
    for name, text in artifact_files_of(task).items():
        (folder / name).write_text(text, encoding="utf-8")
    return load_artifact(folder)


@pytest.mark.parametrize("options", [{}, {"size": 8}, {"levels": "percentile", "channels": 3}])
def test_an_artifact_reads_files_as_its_training_did(tmp_path, options):
    write_all(tmp_path / "p", lambda k, rng: shape_in_alpha(k, rng, 255))
    (tmp_path / "p" / "0" / "deep.png").write_bytes(
        saved(Image.fromarray(ramp(0, np.random.default_rng(5), 900).astype("<u2")))
    )
    task = images(tmp_path, **options)
    artifact = save_artifact(tmp_path / "artifact", task)
    files = sorted((tmp_path / "p").rglob("*.png"))
    made = {row.tobytes() for row in artifact.raw_inputs.read(files)}
    trained = {row.tobytes() for name in SPLITS for row in task.split(name).inputs}
    assert made == trained
    assert set(artifact.classify(files)) <= {"0", "1"}
    assert artifact.classify([files[0].read_bytes()]) == artifact.classify(files[:1])
    with pytest.raises(ValueError, match=r"no.png must be readable"):
        artifact.classify([tmp_path / "no.png"])
    (tmp_path / "wide.png").write_bytes(png(np.zeros((5, 9, 3), np.uint8)))
    if "size" not in options:
        with pytest.raises(ValueError, match=r"wide.png must give the shape"):
            artifact.classify([tmp_path / "wide.png"])
