"""The card of an artifact as plain data (``card.json``): figures of the search and afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nas.core.plain import to_plain
from nas.core.versions import versions
from nas.exporting.verify import Verification
from nas.tasks.base.artifact_files import LABELS, PREPROCESSING, TOKENIZER
from search_spaces.architecture.simulated import describe_on

if TYPE_CHECKING:
    from nas.records.trial import Trial
    from nas.store.run import Run

SCHEMA_VERSION = 2

Card = Mapping[str, Any]


def make_card(
    run: Run,
    record: Trial,
    verification: Verification,
    task_files: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return plain data for ``card.json``: figures of the search and of the verification.

    ``formats`` is empty until further formats are written. ``task_files`` are the contents of the
    task's files by name (``nas.tasks.base.artifact_files``).
    """
    reading, teacher = record.reading, run.teacher()
    labels = json.loads(task_files[LABELS])["labels"] if LABELS in task_files else None
    return {
        "schema": SCHEMA_VERSION,
        # The task's name, not the path of its file: cards are published.
        "task": run.workload.name,
        "kind": run.workload.kind,
        "sample_name": run.workload.sample_name,
        "units_per_sample": run.workload.units_per_sample,
        "metric": run.metric.key,
        "architecture": describe_on(record.architecture, run.config.device),
        "architecture_hash": record.architecture.hash,
        "params": record.params,
        "labels": labels,
        "tokenizer": TOKENIZER if TOKENIZER in task_files else None,
        "preprocessing": PREPROCESSING if PREPROCESSING in task_files else None,
        "run": run.name,
        "trial": record.number,
        "seed": run.config.seed,
        "searched": {
            "validation_quality": record.quality,
            "validation_quality_se": record.quality_se,
            "test_quality": record.test_quality,
            "reading": None if reading is None else replace(reading, host=None).to_dict(),
            "trained_by": [dict(one) for one in record.trained_by],
            "measured_by": dict(record.measured_by),
        },
        "verified": verification.to_dict() | {"versions": versions()},
        "training": to_plain(run.config.training),
        "train_energy_j": record.train_energy_j,
        "start": record.start,
        "qat": record.qat,
        "uncompressed_validation_quality": record.uncompressed_quality,
        "teacher": None if teacher is None else to_plain(teacher),
        "carbon_g_per_kwh": run.config.carbon_g_per_kwh,
        "formats": {},
    }
