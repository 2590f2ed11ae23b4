"""Registry of export formats, and the trials that they support."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nas.core.nearest import did_you_mean
from nas.exporting.formats.base import ExportFormat
from nas.exporting.formats.converted import (
    ExecuTorchFormat,
    ExecuTorchInt8Format,
    LiteRtFormat,
    LiteRtInt8Format,
    OnnxFormat,
    OnnxInt8Format,
    OpenVinoFormat,
    OpenVinoInt8Format,
)
from nas.exporting.formats.huggingface import HuggingFaceFormat
from nas.exporting.formats.python import PythonFormat
from nas.exporting.formats.torch_export import TorchExportFormat
from nas.pareto.queries import Front
from nas.records.goals import Goals
from nas.records.trial import Trial
from nas.store.run import Run
from search_spaces.architecture import Architecture
from search_spaces.runtimes.base import Form
from search_spaces.runtimes.registry import CONVERTERS
from search_spaces.workload import Workload

# The artifact itself, which is always written; the other formats are converted from it.
ARTIFACT = "safetensors"
FORMATS: dict[str, ExportFormat] = {
    each.name: each
    for each in (
        TorchExportFormat(),
        OnnxFormat(),
        OnnxInt8Format(),
        OpenVinoFormat(),
        OpenVinoInt8Format(),
        LiteRtFormat(),
        LiteRtInt8Format(),
        ExecuTorchFormat(),
        ExecuTorchInt8Format(),
        PythonFormat(),
        HuggingFaceFormat(),
    )
}
_MOST_LISTED = 8


def parse_formats(names: Iterable[str], option: str = "format") -> tuple[ExportFormat, ...]:
    """Return the formats called ``names``, each once, without the artifact itself.

    Raises:
        ValueError: there is no such format; the message names ``option``.
    """
    allowed = (ARTIFACT, *FORMATS)
    formats: dict[str, ExportFormat] = {}
    for name in names:
        if name not in allowed:
            hint = did_you_mean(name, allowed)
            raise ValueError(f"{option} must be one of {', '.join(allowed)}, got {name!r}{hint}")
        if name != ARTIFACT:
            formats[name] = FORMATS[name]
    return tuple(formats.values())


def served_format(runtime: str, architecture: Architecture) -> str | None:
    """Return the name of the format in which ``runtime`` runs a trial; ``None`` for torch."""
    if runtime not in CONVERTERS:
        return None
    stem = "onnx" if runtime == "onnxruntime" else runtime
    return f"{stem}-int8" if Form.of(architecture).precision == "int8" else stem


@dataclass(frozen=True, slots=True)
class ExportableFront:
    """The front of the trials that some formats support.

    ``excluded`` maps each gene and value that a format does not support to its trials.
    """

    formats: tuple[str, ...]
    front: Front
    excluded: Mapping[str, tuple[int, ...]]

    def describe(self) -> str:
        """Return one line with the number of excluded trials and their genes."""
        by = f"by {' and '.join(self.formats)}"
        n = len({trial for trials in self.excluded.values() for trial in trials})
        if not n:
            return f"exportable: every complete trial is supported {by}"
        why = ", ".join(f"{gene} ({_list_trials(at)})" for gene, at in self.excluded.items())
        return f"exportable: {n} complete trials are not supported {by}: {why}"


def exportable_front(
    run: Run, names: Iterable[str], limits: Goals | None = None
) -> ExportableFront:
    """Return the front among the complete trials of ``run`` that all formats ``names`` support.

    ``limits`` are those of ``Run.front``.

    Raises:
        ValueError: there is no such format, or no complete trial is supported.
    """
    formats = parse_formats(names, "exportable")
    run.config.load_plugins()
    workload, device = run.workload, run.config.device
    excluded: dict[str, list[int]] = {}

    def is_supported(record: Trial) -> bool:
        refusals = [each.refusal(record.architecture, workload, device) for each in formats]
        for text in {r.gene or r.text for r in refusals if r is not None}:
            excluded.setdefault(text, []).append(record.number)
        return all(refusal is None for refusal in refusals)

    front = run.front(limits, is_supported)
    exportable = ExportableFront(
        tuple(each.name for each in formats) or (ARTIFACT,),
        front,
        {text: tuple(excluded[text]) for text in sorted(excluded)},
    )
    if not len(front) and excluded:
        raise ValueError(f"{exportable.describe()}, so that none is left")
    return exportable


def _list_trials(trials: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, trials[:_MOST_LISTED]))
    more = len(trials) - _MOST_LISTED
    return f"trial{'s' * (len(trials) > 1)} {shown}" + (f" and {more} more" if more > 0 else "")


def check_supported(
    formats: Iterable[ExportFormat], architecture: Architecture, workload: Workload, device: str
) -> None:
    """Check that formats support the network on ``device`` and that their packages are installed.

    Raises:
        ValueError: one line with the reason and the formats that support the network.
    """
    for each in formats:
        refused = each.refusal(architecture, workload, device)
        if refused is not None:
            # Another trial may help only if the cause is a gene.
            hint = f"; --exportable {each.name} chooses another trial" if refused.gene else ""
            able = [ARTIFACT] + [
                name
                for name, other in FORMATS.items()
                if other.refusal(architecture, workload, device) is None
            ]
            raise ValueError(
                f"format {each.name} does not support {refused}; formats that do: "
                f"{', '.join(able)}{hint}"
            )
        missing = each.missing()
        if missing is not None:
            raise ValueError(missing)
