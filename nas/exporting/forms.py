"""Every form of an artifact, and what is refused before anything is written."""

from __future__ import annotations

from collections.abc import Iterable

from nas.exporting.form import Form
from nas.exporting.huggingface_form import HuggingFaceForm
from nas.exporting.onnx_form import OnnxForm, OnnxInt8Form
from nas.exporting.python_form import PythonForm
from nas.exporting.torch_form import TorchExportForm
from search_spaces.architecture import Architecture
from search_spaces.nearest import did_you_mean
from search_spaces.workload import Workload

# The artifact itself, which is always written: the others are made from it and judged by it.
ARTIFACT = "safetensors"
FORMS: dict[str, Form] = {
    form.name: form
    for form in (TorchExportForm(), OnnxForm(), OnnxInt8Form(), PythonForm(), HuggingFaceForm())
}


def parse_forms(names: Iterable[str]) -> tuple[Form, ...]:
    """The forms of ``names``, each once, without the artifact itself.

    Raises:
        ValueError: there is no such form.
    """
    allowed = (ARTIFACT, *FORMS)
    found: dict[str, Form] = {}
    for name in names:
        if name not in allowed:
            hint = did_you_mean(name, allowed)
            raise ValueError(f"format must be one of {', '.join(allowed)}, got {name!r}{hint}")
        if name != ARTIFACT:
            found[name] = FORMS[name]
    return tuple(found.values())


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
            able = [ARTIFACT] + [
                name
                for name, other in FORMS.items()
                if other.refusal(architecture, workload, device) is None
            ]
            raise ValueError(
                f"format {form.name} cannot hold {refused}; what can: {', '.join(able)}"
            )
        missing = form.missing()
        if missing is not None:
            raise ValueError(f"format {form.name} needs {missing}: pip install 'joulenas[onnx]'")
