"""LiteRT, TensorFlow's runtime for devices: fp32, and int8 weights with dynamic activations.

``litert-torch`` converts, ``ai-edge-litert`` runs. The converter pins older versions of packages
that other parts of an environment need newer, so that it may have an environment of its own, whose
Python ``JOULENAS_LITERT_PYTHON`` names. It reads a program of ``torch.export``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from nas.core.scratch import scratch
from search_spaces.architecture import Architecture, Precision
from search_spaces.runtimes.base import Converter, Form, RuntimeRefusal, first_line
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor, nn

PYTHON_VARIABLE = "JOULENAS_LITERT_PYTHON"
_WORKER = Path(__file__).with_name("litert_worker.py")
_TIMEOUT_S = 600.0


class LiteRt(Converter):
    """LiteRT's interpreter with XNNPACK."""

    name = "litert"
    title = "LiteRT"
    extra = "litert"
    packages = ("ai_edge_litert",)
    distributions = ("ai-edge-litert",)
    precisions: ClassVar[frozenset[Precision]] = frozenset({"fp32", "int8"})
    suffix = ".tflite"
    # Shapes are constants of the file.
    has_any_batch = False

    def missing(self) -> str | None:
        """See ``Runtime.missing``; the converter may be in another environment."""
        absent = super().missing()
        named = os.environ.get(PYTHON_VARIABLE)
        if absent is not None or (named is None and find_spec("litert_torch") is not None):
            return absent
        if named is None:
            return (
                f"runtime {self.name} needs litert-torch: pip install 'joulenas[litert]', or, "
                f"where that changes other packages, install litert-torch in an environment of "
                f"its own and set {PYTHON_VARIABLE} to its python"
            )
        if not os.access(named, os.X_OK):
            return f"{PYTHON_VARIABLE} must be an executable, got {named!r}"
        return None

    def limit(self, architecture: Architecture, workload: Workload) -> str | None:
        """See ``Converter.limit``."""
        for index, layer in enumerate(architecture.layers):
            if layer.attention.n_kv_heads == 1 < layer.attention.n_heads:
                # Found by comparing outputs; with other numbers of key-value heads they are equal.
                return (
                    f"litert-torch 0.10 gives wrong outputs for one key-value head of several "
                    f"query heads (layers.{index}.attention)"
                )
        return None

    def convert(
        self,
        module: nn.Module,
        inputs: Sequence[Tensor],
        form: Form,
        folder: Path,
        *,
        is_any_batch: bool = False,
    ) -> None:
        """See ``Converter.convert``."""
        import torch

        to = folder / self.file(form.precision)
        with scratch("litert") as temporary:
            program_path = temporary / "program.pt2"
            try:
                # Without gradients attention takes a path that is written for ``torch.compile``.
                with torch.enable_grad():
                    program = torch.export.export(module, tuple(inputs), strict=False)
                torch.export.save(program, program_path)
            except Exception as error:
                raise RuntimeRefusal(f"torch cannot trace it: {first_line(error)}") from error
            self._convert_program(program_path, form, to)

    def _convert_program(self, program: Path, form: Form, to: Path) -> None:
        job = {
            "program": str(program),
            "to": str(to),
            "precision": form.precision,
            "int8_paths": form.int8_paths,
        }
        python = os.environ.get(PYTHON_VARIABLE, sys.executable)
        environment = dict(os.environ) | {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
        try:
            done = subprocess.run(
                [python, "-P", str(_WORKER)],
                input=json.dumps(job),
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeRefusal(f"litert-torch took longer than {_TIMEOUT_S:g} s") from None
        if done.returncode != 0 or not to.is_file():
            lines = done.stderr.strip().splitlines() or ["it ended without a message"]
            raise RuntimeRefusal(f"litert-torch cannot convert it: {lines[-1][:300]}")
