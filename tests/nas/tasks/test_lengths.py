"""How much of what is read is padding or cut, and which length is proposed."""

import struct

import numpy as np
import pytest
from media_fakes import TONES_HZ, task_file, tone, write_tones, write_wav
from text_fakes import reviews, tale, write_squad, write_table

from nas.cli.main import main
from nas.tasks.audio.wav import read_sound
from nas.tasks.base.checks import check_data, search_notes
from nas.tasks.base.lengths import length_notes, summary_of
from nas.tasks.registry import get_task


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def lines(task, start):
    found = [line for line in check_data(task).warnings if line.startswith(start)]
    # A search says what check-data does.
    assert found == [line for line in search_notes(task) if line.startswith(start)]
    return found


def notes(lengths, limit, **options):
    options = {"key": "sequence_length", "what": "texts", "many_cut": 0.2, **options}
    return length_notes(summary_of(np.array(lengths), limit, **options))


def test_lengths_that_fit_are_not_worth_a_word():
    assert notes([20, 30, 40], 40) == []
    assert notes([8] * 9 + [40], 40) == []


def test_proposals_hold_nearly_all():
    (line,) = notes([8] * 99 + [300], 4096)
    assert "99.7%" in line and "4096 tokens" in line and "sequence_length: 8 holds 98%" in line
    (line,) = notes([9] * 100, 64)
    assert "86%" in line and "sequence_length: 12 holds them all" in line
    (line,) = notes([100] * 50, 40)
    assert "100% are cut" in line and "sequence_length: 104 holds them all" in line


def test_texts(tmp_path):
    write_table(tmp_path / "t.csv", reviews(200))

    def texts(length):
        options = {"name": "t", "data": "t.csv", "sequence_length": length}
        return get_task(task_file(tmp_path / "t.yaml", **options))

    (line,) = lines(texts(4096), "padding: ")
    assert "99.9%" in line and "sequence_length (4096 tokens)" in line
    assert "sequence_length: 12 holds them all" in line
    assert not lines(texts(12), "padding: ") and not lines(texts(12), "cut: ")
    (line,) = lines(texts(3), "cut: ")
    assert "sequence_length: 12" in line
    keys = {texts(length).workload(8).key for length in (12, 4096)}
    assert keys == {"t@12/b8", "t@4096/b8"}


def test_questions_and_translations(tmp_path):
    write_squad(tmp_path / "q.json", 80)
    options = {"kind": "question_answering", "data": "q.json", "sequence_length": 2000}
    (line,) = lines(get_task(task_file(tmp_path / "q.yaml", name="q", **options)), "padding: ")
    assert "sequence_length (2000 words)" in line
    rows = [(text, text.upper()) for text, _ in reviews(200)]
    write_table(tmp_path / "p.csv", rows, ("source", "target"))
    options = {"kind": "translation", "data": "p.csv", "max_vocabulary": 300}
    options |= {"sequence_length": 900, "target_length": 700}
    task = get_task(task_file(tmp_path / "p.yaml", name="p", **options))
    found = lines(task, "padding: ")
    assert "sequence_length (900 tokens)" in found[0] and "target_length (700" in found[1]
    assert task.workload(2).key == "p@900-700/b2"


def test_contexts_that_passages_do_not_fill(tmp_path):
    (tmp_path / "texts").mkdir()
    for i in range(60):
        (tmp_path / "texts" / f"{i}.txt").write_text(tale(8, i))
    options = {"kind": "language_modelling", "data": "texts", "block_length": 4096}
    task = get_task(task_file(tmp_path / "l.yaml", name="l", context_length=100, **options))
    found = lines(task, "left over: ")
    assert found and all("context_length: 32 fits most passages" in line for line in found)
    with pytest.raises(ValueError, match="context_length: 32 fits most passages"):
        get_task(task_file(tmp_path / "l.yaml", name="l", context_length=5000, **options)).about()
    keys = [
        get_task(task_file(tmp_path / "l.yaml", name="l", context_length=n, **options))
        .workload(1)
        .key
        for n in (16, 32)
    ]
    assert keys == ["l@16/b1", "l@32/b1"]


def speech(tmp_path, **options):
    options = {"name": "s", "kind": "speech", "data": "tones", **options}
    return get_task(task_file(tmp_path / "s.yaml", **options))


def test_recordings(tmp_path):
    write_tones(tmp_path / "tones", 20)
    (line,) = lines(speech(tmp_path, sample_rate=8000, duration_s=4.0), "padding: ")
    assert "90%" in line and "duration_s (4 s)" in line and "duration_s: 0.4 holds" in line
    (line,) = lines(speech(tmp_path, sample_rate=8000, duration_s=0.1), "cut: ")
    assert "100% are cut" in line and "duration_s: 0.4" in line
    (line,) = lines(speech(tmp_path, duration_s=0.4), "rate: ")
    assert "60 of 60 recordings have 8,000 samples a second" in line and "4,000 Hz" in line
    (line,) = lines(speech(tmp_path, sample_rate=2000, duration_s=0.4, n_mels=10), "rate: ")
    assert "what is above 1,000 Hz is lost: sample_rate: 8000 keeps it" in line
    assert not lines(speech(tmp_path, sample_rate=8000, duration_s=0.4), "rate: ")
    keys = {speech(tmp_path, sample_rate=8000, duration_s=s).workload(1).key for s in (0.4, 0.5)}
    assert len(keys) == 2


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.99])
def test_a_recording_that_was_cut_short_is_refused(tmp_path, kept):
    path = tmp_path / "tones" / "low" / "cut.wav"
    write_wav(path, tone(TONES_HZ["low"], np.random.default_rng(0)))
    raw = path.read_bytes()
    path.write_bytes(raw[: int(kept * len(raw))])
    with pytest.raises(ValueError, match="its head says 6,400 bytes of sound, and [0-9,]+ follow"):
        read_sound(path)
    write_tones(tmp_path / "tones", 10)
    found = check_data(speech(tmp_path, sample_rate=8000, duration_s=0.4))
    assert found.n_errors == 1 and "cut.wav" in found.errors[0]


def test_heads_that_say_no_length_and_further_chunks_are_whole(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path, tone(300, np.random.default_rng(0)))
    raw = path.read_bytes()
    at = raw.index(b"data") + 4
    streamed = raw[:at] + struct.pack("<I", 0xFFFFFFFF) + raw[at + 4 :]
    tagged = raw + b"LIST" + struct.pack("<I", 4) + b"INFO"
    before = raw[:12] + b"LIST" + struct.pack("<I", 5) + b"INFO!\0" + raw[12:]
    whole = read_sound(path).signal
    for changed in (tagged, before, streamed):
        path.write_bytes(changed)
        np.testing.assert_array_equal(read_sound(path).signal, whole)


def test_durations_are_those_of_whole_recordings_though_only_the_beginning_is_read(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path, tone(300, np.random.default_rng(0)))
    sound = read_sound(path, 0.1)
    assert sound.signal.size < read_sound(path).signal.size / 2
    assert sound.duration_s == pytest.approx(read_sound(path).signal.size / read_sound(path).rate)


def test_check_data_prints_it_and_ends_well(tmp_path, capsys):
    write_table(tmp_path / "t.csv", reviews(200))
    made = task_file(tmp_path / "t.yaml", name="t", data="t.csv", sequence_length=512)
    assert main(["check-data", str(made)]) == 0
    assert "warning: padding: " in capsys.readouterr().out
