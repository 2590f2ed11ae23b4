"""Networks beside the simple baseline of their kind of task, on generated data.

    python -m experiments.benchmarks.training.sequence_baselines summarisation

Summaries: a network that was trained on match reports (``experiments.made_data``), beside the
first three sentences (lead-3). Transcripts: a network that was trained on sung notes, beside the
transcript of the training recording whose spectra are nearest. Networks are small and hand-made:
nothing is searched.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.made_data import documents, lead, write_melodies
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.tasks.base.problems import Problems
from nas.tasks.registry import get_task
from nas.tasks.sequences.pair_objective import PairObjective
from nas.tasks.sequences.summarisation import SummarisationTask
from nas.tasks.sequences.summary_score import METRICS, RougeScore
from nas.tasks.transcription.error_rates import METRICS as ERROR_RATES
from nas.tasks.transcription.error_rates import error_figures
from nas.tasks.transcription.objective import TranscriptionObjective, decoded_texts
from nas.tasks.transcription.task import Transcription
from nas.training.config import TrainingConfig
from nas.training.fit import Setting, fit
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    DecoderLayerSpec,
    DecoderSpec,
    FfnSpec,
    LayerSpec,
)

_ATTENTION, _FFN = AttentionSpec(n_heads=4, n_kv_heads=4, d_head=16), FfnSpec(d_ff=128)
_WRITER = Architecture(
    64,
    (LayerSpec(_ATTENTION, _FFN),) * 2,
    decoder=DecoderSpec(64, (DecoderLayerSpec(_ATTENTION, _ATTENTION, _FFN),)),
)
_LISTENER = Architecture(
    64,
    (LayerSpec(_ATTENTION, _FFN),) * 2,
    patch_size=4,
)
_TRANSCRIPTS = TrainingConfig(
    epochs=30, batch_size=16, learning_rate=3e-3, weight_decay=0.05, label_smoothing=0.0
)
_SUMMARIES = TrainingConfig(epochs=20, batch_size=32, learning_rate=3e-3)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.training.sequence_baselines",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--seeds", type=int, default=3)
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, f"{arguments.kind}-baseline")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        sheet.show(KINDS[arguments.kind](Path(folder), arguments.seeds))
    return 0


def summarisation(folder: Path, seeds: int) -> Table:
    """ROUGE on test documents, of networks with ``seeds`` seeds and of lead-3."""
    lines = [json.dumps({"source": s, "target": t}) + "\n" for s, t in documents(3000)]
    (folder / "reports.jsonl").write_text("".join(lines), encoding="utf-8")
    path = folder / "reports.yaml"
    path.write_text(
        "{name: reports, kind: summarisation, data: reports.jsonl, sequence_length: 60, "
        "target_length: 8, max_vocabulary: 500}",
        encoding="utf-8",
    )
    task = get_task(str(path))
    assert isinstance(task, SummarisationTask)
    split, workload = task.split("test"), task.workload(32)
    # Whole texts: those of the arrays may be cut.
    test_rows = task.read(Problems())["test"]
    references = [str(row.label) for row in test_rows]
    leads = [lead(row.text) for row in test_rows]
    written: dict[str, list[list[str]]] = {"first three sentences": [leads]}
    spent_s: list[float] = []
    for seed in range(seeds):
        started = time.process_time()
        fitted = fit(_WRITER, Setting(task, workload, seed=seed), _SUMMARIES)
        spent_s.append(time.process_time() - started)
        with torch.no_grad():
            tokens = fitted.model(torch.from_numpy(np.asarray(split.inputs)))
        written.setdefault(_WRITER.describe(), []).append(task.objective.texts(tokens))
        print(f"seed {seed + 1}/{seeds}", file=sys.stderr)
    rows: list[dict[str, Any]] = []
    for name, runs in written.items():
        row: dict[str, Any] = {"method": name, "seeds": len(runs)}
        for key in METRICS:
            score = RougeScore(key, "english")
            judge = PairObjective(references, list, end=0, score=score)
            figures = [score.figures(texts, references) for texts in runs]
            row[key.lower()] = 100 * mean(float(score.share(each.sum(axis=0))) for each in figures)
            row[f"{key.lower()}_se"] = 100 * mean(map(judge.standard_error, figures))
        rows.append(row)
    columns = {
        "method": "{method}",
        "seeds": "{seeds}",
        "ROUGE-1": "{rouge1:.1f} ± {rouge1_se:.1f}",
        "ROUGE-2": "{rouge2:.1f} ± {rouge2_se:.1f}",
        "ROUGE-L": "{rougel:.1f} ± {rougel_se:.1f}",
    }
    note = (
        f"{len(references)} test documents; ± the bootstrap standard error over documents, "
        f"mean over seeds; {mean(spent_s):.0f} CPU s a training"
    )
    return Table.of("summaries", columns, rows, note)


def transcription(folder: Path, seeds: int) -> Table:
    """Error rates on test recordings, of networks with ``seeds`` seeds and of neighbours."""
    write_melodies(folder, 1000)
    path = folder / "melodies.yaml"
    path.write_text(
        "{name: melodies, kind: transcription, data: melodies.jsonl, sample_rate: 8000, "
        "duration_s: 2.0}",
        encoding="utf-8",
    )
    task = get_task(str(path))
    assert isinstance(task, Transcription)
    split, workload = task.split("test"), task.workload(16)
    rows = task.read(Problems())
    references = [str(row.label) for row in rows["test"]]
    nearest = _nearest(task.split("train").inputs, split.inputs)
    copied = [str(rows["train"][at].label) for at in nearest]
    written: dict[str, list[list[str]]] = {"nearest training recording": [copied]}
    spent_s: list[float] = []
    for seed in range(seeds):
        started = time.process_time()
        fitted = fit(_LISTENER, Setting(task, workload, seed=seed), _TRANSCRIPTS)
        spent_s.append(time.process_time() - started)
        with torch.no_grad():
            logits = fitted.model(torch.from_numpy(np.asarray(split.inputs)))
        for name, beam_size in (("greedy", 1), ("beam of 8", 8)):
            texts = decoded_texts(logits, task.objective.texts_of, beam_size)
            written.setdefault(f"{_LISTENER.describe()}, {name}", []).append(texts)
        print(f"seed {seed + 1}/{seeds}", file=sys.stderr)
    table: list[dict[str, Any]] = []
    for name, runs in written.items():
        row: dict[str, Any] = {"method": name, "seeds": len(runs)}
        for key in ERROR_RATES:
            judge = TranscriptionObjective(references, list, metric=key, beam_size=1)
            figures = [error_figures(key, texts, references) for texts in runs]
            row[key] = 100 * mean(float(f[:, 0].sum() / f[:, 1].sum()) for f in figures)
            row[f"{key}_se"] = 100 * mean(map(judge.standard_error, figures))
        table.append(row)
    columns = {
        "method": "{method}",
        "seeds": "{seeds}",
        "WER": "{wer:.1f} ± {wer_se:.1f}",
        "CER": "{cer:.1f} ± {cer_se:.1f}",
    }
    note = (
        f"{len(references)} test recordings; ± the bootstrap standard error over recordings, mean "
        f"over seeds; {mean(spent_s):.0f} CPU s a training"
    )
    return Table.of("transcripts", columns, table, note)


def _nearest(train_N: NDArray[np.float32], test_K: NDArray[np.float32]) -> list[int]:
    """The index of the training input with the least squared distance to each test input."""
    flat_N = np.asarray(train_N).reshape(len(train_N), -1)
    squares_N = (flat_N**2).sum(axis=1)
    return [int((squares_N - 2 * flat_N @ one.reshape(-1)).argmin()) for one in test_K]


KINDS: dict[str, Callable[[Path, int], Table]] = {
    "summarisation": summarisation,
    "transcription": transcription,
}


if __name__ == "__main__":
    sys.exit(main())
