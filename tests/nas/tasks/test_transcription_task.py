"""Transcription: recordings are read whole, error rates equal jiwer's, and a network learns."""

import json
import math
import sys
import wave

import jiwer
import numpy as np
import pytest
import torch
from export_fakes import save_check
from media_fakes import task_file
from pages import DOCS, blocks

from experiments.made_data import melody, write_melodies, write_sound
from experiments.recipes import transcription as recipe
from nas.core.files import write_json
from nas.exporting.artifact import load_artifact
from nas.exporting.formats.registry import FORMATS
from nas.searching.expected import Load
from nas.searching.fitting import check_fits, for_task
from nas.tasks.base import SPLITS
from nas.tasks.base.artifact_files import artifact_files_of
from nas.tasks.base.checks import check_data
from nas.tasks.base.metric import get_metric
from nas.tasks.base.problems import DataError
from nas.tasks.registry import get_task
from nas.tasks.transcription.error_rates import METRICS, error_figures
from nas.tasks.transcription.objective import TranscriptionObjective
from nas.training.buckets import Buckets
from nas.training.config import TrainingConfig
from nas.training.fit import Setting, fit
from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD, save_weights
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.cost.counting import count
from search_spaces.models.build import build_network
from search_spaces.space import SearchSpace

OPTIONS = {"sample_rate": 8000, "duration_s": 2.0, "n_mels": 24, "hop_ms": 16, "window_ms": 32}
LAYER = LayerSpec(AttentionSpec(2, 2, 16), FfnSpec(64))
SMALL = Architecture(32, (LAYER, LAYER), patch_size=2)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def transcription(folder, **options):
    made = {"name": "melodies", "kind": "transcription", **OPTIONS, **options}
    if "train" not in options:
        made.setdefault("data", "melodies.jsonl")
    return get_task(task_file(folder / "task.yaml", **made))


def references(task, name):
    return [task.objective._references[int(i)] for i in task.split(name).targets[:, -1]]


def test_tables_and_folders_are_read_the_same(tmp_path):
    write_melodies(tmp_path, 40)
    for line in (tmp_path / "melodies.jsonl").read_text().splitlines():
        row = json.loads(line)
        (tmp_path / row["audio"]).with_suffix(".txt").write_text(f" {row['text'].upper()}\n")
    one, other = transcription(tmp_path), transcription(tmp_path, data="clips")
    for name in SPLITS:
        assert sorted(references(one, name)) == sorted(references(other, name))
        assert one.split(name).inputs.sum() == pytest.approx(other.split(name).inputs.sum(), abs=1)
    (tmp_path / "clips" / "00003.txt").unlink()
    (tmp_path / "clips" / "00004.wav").unlink()
    with pytest.raises(DataError) as error:
        transcription(tmp_path, data="clips").about()
    assert "00003.wav must have a transcript 00003.txt beside it" in "\n".join(error.value.lines)
    assert "00004.txt must have a recording beside it" in "\n".join(error.value.lines)


def test_spectra_are_standardised_and_padding_is_zero(tmp_path):
    write_melodies(tmp_path, 60)
    task = transcription(tmp_path)
    inputs = task.split("train").inputs
    is_sound = (inputs != 0).any(axis=(1, 2))
    values = inputs.transpose(0, 3, 1, 2)[is_sound][:, 0]
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(values.std(axis=0), 1, atol=1e-3)
    # Sound comes first, and as long as the recording lasts.
    lengths = is_sound.sum(axis=1)
    for row, n in zip(is_sound, lengths, strict=True):
        assert row[:n].all() and not row[n:].any()
    seconds = task.about()["seconds"]["train"]
    assert lengths.sum() * 0.016 == pytest.approx(seconds, rel=0.02)
    assert inputs.shape[-1] % 8 == 0


def test_equal_transcripts_and_speakers_are_in_one_split(tmp_path):
    write_melodies(tmp_path, 80)
    task = transcription(tmp_path)
    texts = [set(references(task, name)) for name in SPLITS]
    assert not (texts[0] & texts[1] or texts[0] & texts[2] or texts[1] & texts[2])
    lines = [json.loads(line) for line in (tmp_path / "melodies.jsonl").read_text().splitlines()]
    for index, row in enumerate(lines):
        path = tmp_path / row["audio"]
        named = path.with_name(f"s{index % 10}_{index}.wav")
        path.rename(named)
        row["audio"] = f"clips/{named.name}"
    (tmp_path / "melodies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    task = transcription(tmp_path, speaker_before="_", validation_share=0.3, test_share=0.3)
    assert all(len(task.split(name)) % 8 == 0 for name in SPLITS)
    # The same recording in two files is a leak that the check names.
    (tmp_path / "held.jsonl").write_text(json.dumps(lines[0]) + "\n" + json.dumps(lines[1]) + "\n")
    sources = {"train": "melodies.jsonl", "test": "held.jsonl", "validation_share": 0.3}
    report = check_data(transcription(tmp_path, **sources))
    assert any(line.startswith("leak: ") and "test samples" in line for line in report.warnings)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokens": "word"}, "tokens must be one of character, bpe, got 'word'"),
        ({"metric": "bleu"}, "metric must be wer or cer, got 'bleu'"),
        ({"beam_size": 0}, "beam_size must be an integer in 1.."),
        ({"max_vocabulary": 2}, "max_vocabulary must be an integer in 3.."),
        ({"tokens": "bpe", "max_vocabulary": 100}, "max_vocabulary must be an integer in 258.."),
        ({"lowercase": 1}, "lowercase must be true or false"),
        ({"speaker_before": 3}, "speaker_before must be a text"),
        ({"duration_s": 0}, "duration_s must be a number > 0"),
        ({"audio": "a", "text": "a"}, "must be two columns"),
        ({"labels": "x"}, "unknown key 'labels'"),
    ],
)
def test_a_wrong_task_file_is_named(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        transcription(tmp_path, **options)


def test_a_missing_package_is_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(ValueError, match=r"needs: pip install 'joulenas\[transcription\]'"):
        transcription(tmp_path)


def test_all_recordings_that_cannot_be_read_are_named_with_their_rows(tmp_path):
    write_melodies(tmp_path, 20)
    (tmp_path / "clips" / "00002.wav").write_text("no sound")
    (tmp_path / "clips" / "00005.wav").unlink()
    rng = np.random.default_rng(0)
    write_sound(tmp_path / "clips" / "00009.wav", np.tile(melody(rng)[0], 9))
    with pytest.raises(DataError) as error:
        transcription(tmp_path).about()
    # A row that names no recording is found before recordings are read.
    assert [line for line in error.value.lines if "melodies.jsonl:6" in line]
    (tmp_path / "clips" / "00005.wav").write_bytes(b"")
    with pytest.raises(DataError) as error:
        transcription(tmp_path).about()
    lines = error.value.lines
    assert len(lines) == 3
    for row, what in ((3, "WAV file"), (6, "bytes, got 0"), (10, "must be at most duration_s")):
        assert any(f"melodies.jsonl:{row} " in line and what in line for line in lines)


def test_transcripts_that_are_too_long_for_their_frames_are_warned_of(tmp_path):
    write_melodies(tmp_path, 60)
    assert not any("steps" in line for line in transcription(tmp_path).warnings())
    (line,) = [x for x in transcription(tmp_path, hop_ms=32).warnings() if "steps" in x]
    assert "patches of 4 frames" in line and "a patch_size of at most 2" in line


@pytest.mark.parametrize("name", METRICS)
def test_rates_are_those_of_the_package_over_all(name):
    right = ["do re mi", "so", "la ti do re", "fa fa"]
    written = ["do mi mi", "", "la ti do re mi", "fa fa"]
    figures = error_figures(name, written, right)
    whole = {"wer": jiwer.wer, "cer": jiwer.cer}[name](right, written)
    objective = TranscriptionObjective(right, list, metric=name, beam_size=1)
    assert figures[:, 0].sum() / figures[:, 1].sum() == pytest.approx(whole)
    assert objective.quality(figures.sum(axis=0)) == pytest.approx(1 - whole)
    # More errors than words are no quality below 0.
    assert objective.quality(error_figures(name, ["do re mi fa so la"], ["ti"])[0]) == 0


def test_a_standard_error_is_how_rates_of_such_recordings_spread():
    n, rng = 60, np.random.default_rng(0)
    right = [melody(rng)[1] for _ in range(800)]
    written = [" ".join(w for w in text.split() if rng.random() < 0.8) for text in right]
    figures = error_figures("wer", written, right)
    objective = TranscriptionObjective(right, list, metric="wer", beam_size=1)
    rates, errors = [], []
    for _ in range(25):
        drawn = figures[rng.choice(len(right), n, replace=False)]
        rates.append(float(objective.quality(drawn.sum(axis=0))))
        errors.append(objective.standard_error(drawn))
    assert np.std(rates, ddof=1) == pytest.approx(np.mean(errors), rel=0.4)
    perfect = error_figures("wer", right[:n], right[:n])
    assert 0 < objective.standard_error(perfect) < 0.1
    assert objective.standard_error(perfect[:1]) == math.inf


def test_error_rates_are_shown_and_read_as_such():
    metric = get_metric("wer")
    assert metric.falls and metric.text(0.88, 0.01) == "12.00 ± 1.00"
    for text in ("12", "12 WER", "12%"):
        assert metric.parse(text) == pytest.approx(0.88)
    with pytest.raises(ValueError, match=r"WER must be in \[0, 100\] \(WER such as 12\)"):
        metric.parse("101")


def test_padding_changes_no_output_and_buckets_are_cut(tmp_path):
    write_melodies(tmp_path, 60)
    task = transcription(tmp_path)
    workload = task.workload(8)
    network = build_network(SMALL, workload, generator_seed=0).eval()
    assert count(SMALL, workload).params == sum(p.numel() for p in network.parameters())
    inputs = torch.from_numpy(np.asarray(task.split("train").inputs))
    is_sound = (inputs != 0).any(dim=2)[:, 0]
    buckets = Buckets.of(network, inputs, 8)
    widths, n_seen = set(), 0
    with torch.no_grad():
        for indices, width in buckets.draw(torch.Generator().manual_seed(0)):
            whole, cut = network(inputs[indices]), network(inputs[indices][..., :width])
            torch.testing.assert_close(whole[:, : cut.shape[1]], cut, atol=1e-4, rtol=1e-4)
            # What was cut is padding, which writes the blank.
            assert not is_sound[indices][:, width:].any()
            assert (whole[:, cut.shape[1] :].argmax(dim=-1) == 0).all()
            widths.add(width)
            n_seen += len(indices)
    assert n_seen == len(inputs) and len(widths) > 1 and all(w % 2 == 0 for w in widths)
    load = Load.of(task, 8)
    assert load.share_read == pytest.approx(float(is_sound.float().mean()), abs=1e-3)


def test_measured_inputs_are_full_of_sound_and_joules_are_per_second(tmp_path):
    write_melodies(tmp_path, 60)
    task = transcription(tmp_path)
    workload = task.workload(8)
    assert workload.unit == "second of audio" and workload.units_per_sample == 2.048
    assert (workload.key, workload.n_units) == ("melodies@2.048s/b8", 8 * 2.048)
    inputs = task.measured_inputs(8)
    assert inputs.shape == (8, *workload.input_shape) and (inputs != 0).any(axis=(1, 2)).all()
    # Frames of the first recordings, in their order.
    first = task.split("train").inputs[0, 0]
    n = int((first != 0).any(axis=0).sum())
    np.testing.assert_array_equal(inputs[0, 0, :, :n], first[:, :n])


def test_patches_that_divide_the_frames_are_kept(tmp_path):
    write_melodies(tmp_path, 40)
    workload = transcription(tmp_path).workload(8)
    genes = {"d_model": [32], "depth": [1], "n_heads": [2], "n_kv_heads": [2], "ffn_ratio": [2]}
    space = SearchSpace.from_dict({"name": "s", "patch_size": [2, 3, 4, 8], **genes})
    assert for_task(space, workload).values("patch_size") == (2, 4, 8)
    with pytest.raises(ValueError, match="patch_size must divide the recording's 128 frames"):
        check_fits(space, workload)
    odd = SearchSpace.from_dict({"name": "s", "patch_size": [5], **genes})
    assert for_task(odd, workload).values("patch_size") == (4,)


def exported(folder, n, epochs):
    """A trained network with the files of an artifact, and its validation."""
    write_melodies(folder, n)
    task = transcription(folder)
    workload = task.workload(16)
    config = TrainingConfig(
        epochs=epochs, batch_size=16, learning_rate=5e-3, weight_decay=0.02, label_smoothing=0.0
    )
    fitted = fit(SMALL, Setting(task, workload, seed=0), config)
    to = folder / "artifact"
    to.mkdir()
    write_json(to / ARCHITECTURE, SMALL.to_dict())
    write_json(to / WORKLOAD, workload.to_dict())
    save_weights(fitted.model, to / WEIGHTS)
    for name, text in artifact_files_of(task).items():
        (to / name).write_text(text, encoding="utf-8")
    return load_artifact(to), fitted.validation


@pytest.mark.thorough
def test_notes_are_learnt_and_an_artifact_transcribes_any_rate(tmp_path):
    loaded, validation = exported(tmp_path, 500, 30)
    assert validation.value > 0.7 and 0 < validation.standard_error < 0.1
    rng = np.random.default_rng(99)
    for rate in (8000, 11_025, 44_100):
        songs, paths = [melody(rng, rate) for _ in range(24)], []
        for index, (signal, _) in enumerate(songs):
            paths.append(tmp_path / f"{rate}-{index}.wav")
            write_sound(paths[-1], signal, rate)
        right = [text for _, text in songs]
        for beam_size in (1, 4):
            assert jiwer.wer(right, loaded.transcribe(paths, beam_size=beam_size)) < 0.4


def test_an_artifact_reads_one_recording_or_several_of_any_rate(tmp_path):
    loaded, _ = exported(tmp_path, 60, 1)
    at = np.arange(44_100) / 44_100
    for rate in (8000, 22_050, 44_100):
        signal = np.interp(np.arange(rate) / rate, at, 0.5 * np.sin(2 * np.pi * 440 * at))
        write_sound(tmp_path / f"{rate}.wav", signal, rate)
    paths = [tmp_path / f"{rate}.wav" for rate in (8000, 22_050, 44_100)]
    slow, *faster = loaded.raw_inputs.read(paths)
    # Up to the edge of the band, which resampling filters; a second of two, then padding.
    for other in faster:
        np.testing.assert_allclose(other[:, :20, 2:58], slow[:, :20, 2:58], atol=0.25)
    assert (slow[0, :, :62] != 0).any(axis=0).all() and not slow[0, :, 63:].any()
    texts = loaded.transcribe(paths)
    assert len(texts) == 3 and all(isinstance(text, str) for text in texts)
    assert loaded.transcribe(str(paths[0])) == texts[0] and loaded.transcribe([]) == []


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["pt2", "onnx"])
def test_a_format_writes_the_logits_of_the_network(tmp_path, name):
    loaded, _ = exported(tmp_path, 60, 1)
    form, folder = FORMATS[name], tmp_path / "artifact"
    assert form.refusal(loaded.architecture, loaded.workload, "cpu") is None
    paths = sorted((tmp_path / "clips").glob("*.wav"))[:3]
    inputs = torch.from_numpy(loaded.raw_inputs.read(paths))
    save_check(folder, inputs, loaded.call(inputs))
    form.write(folder)
    call = form.load(folder, device="cpu", threads=1).call
    for batch in (1, 3):
        expected = loaded.call(inputs[:batch])
        torch.testing.assert_close(call(inputs[:batch]), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["python", "huggingface"])
def test_forms_that_cannot_hold_it_say_so(tmp_path, name):
    write_melodies(tmp_path, 40)
    refusal = FORMATS[name].refusal(SMALL, transcription(tmp_path).workload(8), "cpu")
    assert "transcription" in str(refusal)


def test_an_artifact_refuses_what_it_cannot_transcribe(tmp_path):
    loaded, _ = exported(tmp_path, 60, 1)
    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", None))
        file.writeframes(bytes(2 * 8000 * 5))
    with pytest.raises(ValueError, match=r"long.wav must be at most duration_s \(2 s\) long"):
        loaded.transcribe(tmp_path / "long.wav")
    with pytest.raises(ValueError, match="beam_size must be >= 1, got 0"):
        loaded.transcribe([], beam_size=0)
    with pytest.raises(ValueError, match="classify requires the artifact of a classifier"):
        loaded.classify(tmp_path / "long.wav")
    made = json.loads((tmp_path / "artifact" / "preprocessing.json").read_text())
    assert made["of"]["front_end"]["n_mels"] == len(made["mean"]) == 24


def test_the_task_of_the_page_is_one_and_fits_the_recipe(tmp_path):
    (text,) = blocks(DOCS / "transcription.md", "yaml")
    write_melodies(tmp_path, 60).rename(tmp_path / "letters.jsonl")
    (tmp_path / "letters.yaml").write_text(text)
    task = get_task(str(tmp_path / "letters.yaml"))
    report = check_data(task)
    assert not report.errors
    # Melodies are far shorter than the page's recordings.
    assert any("duration_s: 2 holds them all" in line for line in report.warnings)
    space = for_task(recipe("cpu").space, task.workload(16))
    check_fits(space, task.workload(16))
    assert space.size() > 1000 and space.values("patch_size") == (2, 4, 8)


def test_byte_pairs_are_tokens_as_well(tmp_path):
    write_melodies(tmp_path, 60)
    task = transcription(tmp_path, tokens="bpe", max_vocabulary=270)
    split, objective = task.split("train"), task.objective
    assert task.workload(1).n_classes <= 270
    characters = transcription(tmp_path).split("train").targets
    assert (split.targets[:, :-1] != 0).sum() < (characters[:, :-1] != 0).sum()
    assert objective.texts_of(split.targets[:, :-1]) == references(task, "train")
