"""Every form of an artifact, and what is refused before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nas.core.nearest import did_you_mean
from nas.exporting.formats.form import Form
from nas.exporting.formats.huggingface import HuggingFaceForm
from nas.exporting.formats.onnx import OnnxForm, OnnxInt8Form
from nas.exporting.formats.python import PythonForm
from nas.exporting.formats.torch_export import TorchExportForm
from nas.pareto.queries import Front
from nas.records.goals import Goals
from nas.records.trial import Trial
from nas.store.run import Run
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

# The artifact itself, which is always written: the others are made from it and judged by it.
ARTIFACT = "safetensors"
_MOST_LISTED = 8
FORMS: dict[str, Form] = {
    form.name: form
    for form in (TorchExportForm(), OnnxForm(), OnnxInt8Form(), PythonForm(), HuggingFaceForm())
}


def parse_forms(names: Iterable[str], what: str = "format") -> tuple[Form, ...]:
    """The forms of ``names``, each once, without the artifact itself; errors call them ``what``.

    Raises:
        ValueError: there is no such form.
    """
    allowed = (ARTIFACT, *FORMS)
    found: dict[str, Form] = {}
    for name in names:
        if name not in allowed:
            hint = did_you_mean(name, allowed)
            raise ValueError(f"{what} must be one of {', '.join(allowed)}, got {name!r}{hint}")
        if name != ARTIFACT:
            found[name] = FORMS[name]
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Held:
    """The front of the trials that forms can hold, and what keeps the other trials out.

    ``left_out`` has for each gene with its value (or what else a form cannot hold) the trials.
    """

    forms: tuple[str, ...]
    front: Front
    left_out: Mapping[str, tuple[int, ...]]

    def describe(self) -> str:
        """One line: how many trials are left out, and by which genes."""
        by = f"by {' and '.join(self.forms)}"
        n = len({trial for trials in self.left_out.values() for trial in trials})
        if not n:
            return f"exportable: every complete trial can be held {by}"
        why = ", ".join(f"{gene} ({_listed(at)})" for gene, at in self.left_out.items())
        return f"exportable: {n} complete trials cannot be held {by}: {why}"


def held_front(run: Run, names: Iterable[str], limits: Goals | None = None) -> Held:
    """The front of the complete trials of ``run`` that every form of ``names`` can hold.

    A trial that only others dominate which no such form can hold is on it. ``limits`` are those
    of ``Run.front``.

    Raises:
        ValueError: there is no such form, or some trial is complete and none can be held.
    """
    names = list(names)
    forms = parse_forms(names, "exportable")
    run.config.load_plugins()
    workload, device = run.workload, run.config.device
    left_out: dict[str, list[int]] = {}

    def holds(record: Trial) -> bool:
        refusals = [form.refusal(record.architecture, workload, device) for form in forms]
        for text in {r.gene or r.text for r in refusals if r is not None}:
            left_out.setdefault(text, []).append(record.number)
        return all(refusal is None for refusal in refusals)

    front = run.front(limits, holds)
    found = Held(
        tuple(form.name for form in forms) or (ARTIFACT,),
        front,
        {text: tuple(left_out[text]) for text in sorted(left_out)},
    )
    if not len(front) and left_out:
        raise ValueError(f"{found.describe()}, so that none is left")
    return found


def _listed(trials: tuple[int, ...]) -> str:
    """Some numbers of trials in words."""
    shown = ", ".join(map(str, trials[:_MOST_LISTED]))
    more = len(trials) - _MOST_LISTED
    return f"trial{'s' * (len(trials) > 1)} {shown}" + (f" and {more} more" if more > 0 else "")


def check_held(
    forms: Iterable[Form], architecture: Architecture, workload: Workload, device: str
) -> None:
    """Refuse forms that cannot hold the network as it runs on ``device``, or that lack packages.

    Raises:
        ValueError: one line that names what cannot be held, and the formats that can.
    """
    for form in forms:
        refused = form.refusal(architecture, workload, device)
        if refused is not None:
            # Another trial may have another value of a gene, and nothing else.
            hint = f"; --exportable {form.name} chooses another trial" if refused.gene else ""
            able = [ARTIFACT] + [
                name
                for name, other in FORMS.items()
                if other.refusal(architecture, workload, device) is None
            ]
            raise ValueError(
                f"format {form.name} cannot hold {refused}; what can: {', '.join(able)}{hint}"
            )
        missing = form.missing()
        if missing is not None:
            raise ValueError(f"format {form.name} needs {missing}: pip install 'joulenas[onnx]'")
