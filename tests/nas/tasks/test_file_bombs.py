"""What a small file claims to hold is compared with its length before memory is asked for."""

import gzip
import json
import math
import resource
import struct
import subprocess
import sys
import tracemalloc
import wave
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from memory_fakes import head, little_memory, one_line
from run_fakes import make_run

from nas.cli.main import main
from nas.core.files import read_array as read_npy
from nas.tasks.audio.recording import FrontEnd
from nas.tasks.audio.recording_reader import RecordingReader
from nas.tasks.audio.wav import read_sound
from nas.tasks.base.arrays import read_array, read_named_arrays
from nas.tasks.registry import get_task


@pytest.mark.parametrize("dtype", ["<f8", "|u1", "<U1000000"])
def test_an_npz_claims_no_more_than_it_holds(dtype, tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("x.npy", head((10**12,), dtype))
    with little_memory(), pytest.raises(ValueError) as error:
        read_named_arrays(path, ("x",))
    one_line(error, str(path), "x.npy", "as its head says")


def test_a_packed_npz_does_not_unpack_to_more_than_its_kind_may(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        with packed.open("x.npy", "w") as member:
            member.write(head((400_000_000,), "|u1"))
            for _ in range(40):
                member.write(bytes(10_000_000))
        packed.writestr("y.npy", head((2,), "|u1") + b"ab")
    with little_memory(), pytest.raises(ValueError) as error:
        read_named_arrays(path, ("x",))
    one_line(error, str(path), "claims 400,000,")
    # What is not asked for is not read.
    assert read_named_arrays(path, ("y",))["y"].tolist() == [97, 98]


def idx(n, values=b""):
    return struct.pack(">HBB", 0, 8, 1) + struct.pack(">I", n) + values


@pytest.mark.parametrize("n", [2_000_000_000, 4_000_000_000])
def test_an_idx_bomb_is_refused(n, tmp_path):
    path = tmp_path / "b.gz"
    with gzip.open(path, "wb", compresslevel=9) as packed:
        packed.write(idx(n))
        for _ in range(30):
            packed.write(bytes(10_000_000))
    with little_memory(), pytest.raises(ValueError) as error:
        read_array(path)
    one_line(error, str(path), f"claims {n:,}", f"{path.stat().st_size:,} packed")


def test_a_plain_idx_is_as_long_as_it_says(tmp_path):
    path = tmp_path / "b.idx"
    path.write_bytes(idx(3_000_000_000, b"abc"))
    with little_memory(), pytest.raises(ValueError) as error:
        read_array(path)
    one_line(error, str(path), "3,000,000,000 bytes")
    path.write_bytes(idx(3, b"abc"))
    assert read_array(path).tolist() == [97, 98, 99]


def test_arrays_that_pack_well_are_read(tmp_path):
    path = tmp_path / "b.gz"
    with gzip.open(path, "wb") as packed:
        packed.write(idx(20_000_000, bytes(20_000_000)))
    assert path.stat().st_size < 30_000 and len(read_array(path)) == 20_000_000


def test_an_array_of_ours_claims_no_more_than_it_holds(tmp_path):
    path = tmp_path / "inputs.npy"
    path.write_bytes(head((10**12,)))
    with little_memory(), pytest.raises(ValueError) as error:
        read_npy(path)
    one_line(error, str(path))


def sound(path, seconds, rate=16000, width=2, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        t = np.arange(int(seconds * rate))
        values = (np.sin(t / 7) * 0.4 * 2 ** (8 * width - 1)).astype(np.int64)
        values = np.repeat(values[:, None], channels, 1).astype("<i8")
        if width == 1:
            values += 128
        file.writeframes(values.view(np.uint8).reshape(-1, 8)[:, :width].tobytes())


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_the_beginning_of_a_long_recording_is_what_a_short_one_has(width, rate, tmp_path):
    front_end = FrontEnd()
    sound(tmp_path / "short.wav", 1.5, rate, width, 2)
    sound(tmp_path / "long.wav", 60, rate, width, 2)
    short = RecordingReader(front_end).read(tmp_path / "short.wav")
    tracemalloc.start()
    long = RecordingReader(front_end).read(tmp_path / "long.wav")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(short, long)
    assert peak < (tmp_path / "long.wav").stat().st_size or width == 1
    assert len(read_sound(tmp_path / "short.wav").signal) == math.floor(1.5 * rate)


def test_a_recording_of_gigabytes_is_read_for_a_second_of_it(tmp_path):
    path = tmp_path / "a.wav"
    sound(path, 2)
    with path.open("r+b") as file:
        # Hours of silence that take no room on the disk.
        file.truncate(3_000_000_000)
        file.seek(40)
        file.write(struct.pack("<I", 3_000_000_000 - 44))
    with little_memory():
        RecordingReader(FrontEnd()).read(path)


@pytest.mark.parametrize(("at", "value"), [(16, 2**31), (24, 2**32 - 1), (32, 2**31 + 2**16 - 1)])
def test_what_a_recording_claims_is_bounded(at, value, tmp_path):
    path = tmp_path / "a.wav"
    sound(path, 2)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack("<I", value))
    with little_memory(), pytest.raises(ValueError) as error:
        RecordingReader(FrontEnd()).read(path)
    one_line(error, "must")


def test_a_table_of_a_thousand_million_rows_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    table = pyarrow.table({"text": ["a"] * 3_000_000, "label": [1] * 3_000_000})
    pyarrow.parquet.write_table(table, path)
    (tmp_path / "t.yaml").write_text("name: t\ndata: x.parquet\nsequence_length: 4\n")
    with pytest.raises(ValueError) as error:
        get_task(str(tmp_path / "t.yaml")).about()
    one_line(error, str(path), "3,000,000")


def test_a_table_of_long_texts_that_pack_to_nothing_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    rows = ["a" * 20_000_000] * 20
    table = pyarrow.table({"text": rows, "label": [1] * len(rows)})
    pyarrow.parquet.write_table(table, path, compression="zstd", use_dictionary=False)
    (tmp_path / "t.yaml").write_text("name: t\ndata: x.parquet\nsequence_length: 4\n")
    with pytest.raises(ValueError) as error:
        get_task(str(tmp_path / "t.yaml")).about()
    one_line(error, str(path), "claims 400,")


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.txt"])
def test_a_giant_file_of_texts_is_refused_unread(name, tmp_path):
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(5_000_000_000)
    for kind in ("text_classification", "language_modelling"):
        (tmp_path / "t.yaml").write_text(
            f"name: t\nkind: {kind}\ndata: {name}\n"
            + ("sequence_length: 4\n" if kind[0] == "t" else "")
        )
        with little_memory(), pytest.raises(ValueError) as error:
            get_task(str(tmp_path / "t.yaml")).split("train")
        one_line(error, str(path), "5,000,000,000")


def test_a_giant_line_is_named(tmp_path):
    line = json.dumps({"text": "a" * 20_000_000, "label": "x"})
    (tmp_path / "x.jsonl").write_text(line + "\n" + '{"text": "b", "label": "y"}\n')
    (tmp_path / "t.yaml").write_text("name: t\ndata: x.jsonl\nsequence_length: 4\n")
    with pytest.raises(ValueError) as error:
        get_task(str(tmp_path / "t.yaml")).about()
    one_line(error, "x.jsonl:1", "20,000,")


def test_a_space_or_task_of_aliases_is_refused(tmp_path, capsys):
    path = tmp_path / "t.yaml"
    laughs = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    path.write_text(f"a0: &a0 [lol]\n{laughs}name: t\n")
    assert main(["check-data", str(path)]) == 2
    said = capsys.readouterr()
    assert "alias" in said.out + said.err
    path.write_text("[" * 200_000)
    assert main(["check-data", str(path)]) == 2


def test_a_run_of_gigabytes_is_refused(tmp_path, capsys):
    folder = make_run(tmp_path / "run", trials=2).folder
    with (folder / "run.json").open("r+b") as file:
        file.truncate(3_000_000_000)
    with little_memory():
        assert main(["front", str(folder)]) == 2
    assert "run.json must be at most" in capsys.readouterr().err


def test_memory_that_is_not_there_is_one_line(tmp_path):
    path = tmp_path / "b.gz"
    with gzip.open(path, "wb", compresslevel=0) as packed:
        packed.write(idx(400_000_000))
        for _ in range(40):
            packed.write(bytes(10_000_000))
    code = (
        "import sys; from pathlib import Path; from nas.tasks.base.arrays import read_array\n"
        "try: read_array(Path(sys.argv[1]))\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20)),
    )  # fmt: skip
    assert "must fit into memory" in done.stdout and str(path) in done.stdout, done.stderr
