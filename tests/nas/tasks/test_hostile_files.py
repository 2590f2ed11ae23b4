"""Heads, members and tables that a reader could be led astray by: one line each, little memory."""

import io
import json
import struct
import time
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from memory_fakes import head, little_memory, one_line

from nas.cli.main import main
from nas.core.files import read_array as read_npy
from nas.tasks.base.arrays import read_array, read_named_arrays
from nas.tasks.registry import get_task
from nas.tasks.text.tokenize import read_tokenizer


def raw_head(text):
    packed = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(packed)) + packed


def descr(descr="'<f8'", shape="(1,)"):
    return raw_head(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}")


HOSTILE_HEADS = [
    descr(shape=f"(0, {10**30})"),
    descr(shape=f"({2**63}, {2**63})"),
    descr(shape="(True,)"),
    descr(shape="(-1, -1)") + bytes(8),
    descr("[('a', " * 200 + "'<f8'" + ")]" * 200),
    descr("'|V0'", f"({10**12},)"),
    descr("'<U0'", f"({10**10},)"),
    descr("'|O'"),
    raw_head("(" * 4000 + ")" * 4000),
]


@pytest.mark.parametrize("content", HOSTILE_HEADS, ids=range(len(HOSTILE_HEADS)))
def test_heads_of_any_kind_are_one_line(content, tmp_path):
    plain, packed = tmp_path / "x.npy", tmp_path / "x.npz"
    plain.write_bytes(content)
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("x.npy", content)
    with little_memory():
        for path, read in ((plain, read_array), (packed, lambda p: read_named_arrays(p, ("x",)))):
            with pytest.raises(ValueError) as error:
                read(path)
            one_line(error, str(path), "must")
        if b"V0" not in content and b"U0" not in content:
            with pytest.raises(ValueError) as error:
                read_npy(plain)
            one_line(error, str(plain))


def test_the_array_that_was_checked_is_the_one_that_is_read(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        with packed.open("x", "w") as member:
            member.write(head((400_000_000,), "|u1"))
            for _ in range(40):
                member.write(bytes(10_000_000))
        packed.writestr("x.npy", head((2,), "|u1") + b"ab")
    with little_memory():
        assert read_named_arrays(path, ("x",))["x"].tolist() == [97, 98]


@pytest.mark.parametrize("packing", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_damaged_and_encrypted_members_are_one_line(packing, tmp_path):
    path = tmp_path / "x.npz"
    values = np.random.default_rng(0).bytes(100_000)
    with zipfile.ZipFile(path, "w", packing) as packed:
        packed.writestr("x.npy", head((100_000,), "|u1") + values)
    whole = path.read_bytes()
    damaged, encrypted = bytearray(whole), bytearray(whole)
    damaged[3000:3100] = b"\xff" * 100
    encrypted[6] |= 1
    encrypted[whole.find(b"PK\x01\x02") + 8] |= 1
    for content in (damaged, encrypted):
        path.write_bytes(content)
        with pytest.raises(ValueError) as error:
            read_named_arrays(path, ("x",))
        one_line(error, str(path))


def image_file(tmp_path, data):
    (tmp_path / "t.yaml").write_text(f"name: t\nkind: images\ndata: {data}\n")
    return get_task(str(tmp_path / "t.yaml"))


def test_more_pictures_than_bytes_are_refused(tmp_path):
    path, n = tmp_path / "x.npz", 60_000_000
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("images.npy", head((n, 1, 1), "|u1") + bytes(n))
        packed.writestr("labels.npy", head((n,), "|u1") + bytes(n))
    with little_memory(200_000_000), pytest.raises(ValueError) as error:
        image_file(tmp_path, "x.npz").about()
    one_line(error, str(path), f"{n:,}")


@pytest.mark.parametrize("column", ["text", "image"])
def test_a_value_that_a_table_names_many_times_is_counted_each_time(column, tmp_path):
    n, values = 300_000, [b"a" * 1_000_000, b"b" * 1_000_000]
    kind = pyarrow.string() if column == "text" else pyarrow.binary()
    which = pyarrow.array(np.arange(n) % 2, type=pyarrow.int32())
    cells = pyarrow.DictionaryArray.from_arrays(which, pyarrow.array(values, type=kind))
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(
        pyarrow.table({column: cells, "label": which}),
        path,
        compression="zstd",
        store_schema=False,
    )
    assert path.stat().st_size < 20_000
    kind = "text_classification\nsequence_length: 4" if column == "text" else "images"
    (tmp_path / "t.yaml").write_text(f"name: t\nkind: {kind}\ndata: x.parquet\n")
    pool = pyarrow.default_memory_pool()
    # The peak is of the whole process, in which other tests may have run.
    allowed = max(pool.max_memory(), pool.bytes_allocated() + 1_000_000_000)
    with little_memory(600_000_000), pytest.raises(ValueError) as error:
        get_task(str(tmp_path / "t.yaml")).about()
    one_line(error, str(path), "must unpack to at most 256,000,000 bytes")
    assert pool.max_memory() <= allowed


def test_texts_of_a_table_that_are_no_utf_8_name_the_file(tmp_path):
    path = tmp_path / "x.parquet"
    texts = pyarrow.array([b"\xff\xfe", b"ab"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": [0, 1]}), path)
    (tmp_path / "t.yaml").write_text("name: t\ndata: x.parquet\nsequence_length: 4\n")
    with pytest.raises(ValueError) as error:
        get_task(str(tmp_path / "t.yaml")).about()
    one_line(error, str(path))


@pytest.mark.parametrize("ending", ["x.NPZ", "x.Parquet"])
def test_endings_are_read_in_any_case(ending, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (60, 4, 4), dtype=np.uint8)
    labels = np.arange(60) % 2
    if ending == "x.NPZ":
        with (tmp_path / ending).open("wb") as file:
            np.savez(file, images=images, labels=labels)
    else:
        from PIL import Image

        cells = []
        for image in images:
            Image.fromarray(image).save(buffer := io.BytesIO(), "PNG")
            cells.append(buffer.getvalue())
        table = pyarrow.table({"image": cells, "label": labels})
        pyarrow.parquet.write_table(table, tmp_path / ending)
    assert sum(image_file(tmp_path, ending).about()["samples"].values()) == 60


@pytest.mark.parametrize(
    "value",
    [
        '!!int ""',
        '!!float "_"',
        "!!timestamp x",
        "!!bool x",
        "!!map ab",
        "1:" * 100_000 + "1",
        "0x" + "f" * 900_000,
        "1" * 900_000,
        "[" * 300_000,
    ],
    ids=lambda value: value[:12],
)
def test_yaml_of_any_kind_is_one_line_at_once(value, tmp_path, capsys):
    path = tmp_path / "t.yaml"
    path.write_text(f"name: t\nsequence_length: {value}\n")
    began = time.process_time()
    assert main(["check-data", str(path)]) == 2
    assert time.process_time() - began < 10
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("error")]
    assert len(said) == 1 and str(path) in said[0] and len(said[0]) < 500


@pytest.mark.parametrize("pattern", [{"String": "a"}, {"Regex": "a"}])
def test_a_normalizer_that_multiplies_texts_is_refused(pattern, tmp_path):
    step = {"type": "Replace", "pattern": pattern, "content": "a" * 10}
    tokenizer = {
        "version": "1.0",
        "normalizer": {"type": "Sequence", "normalizers": [step] * 12},
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"},
    }
    path = tmp_path / "own.json"
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError) as error:
        read_tokenizer(path, 8)
    one_line(error, str(path), "times as long")
    tokenizer["normalizer"]["normalizers"] = [step, {"type": "Lowercase"}]
    path.write_text(json.dumps(tokenizer))
    assert read_tokenizer(path, 8).encode(["a b"]).shape == (1, 8)
