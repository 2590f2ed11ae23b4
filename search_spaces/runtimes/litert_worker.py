"""Convert a program of ``torch.export`` to LiteRT.

Run by its path, perhaps in another environment: imports nothing of this project. The job is one
JSON object on stdin. The program was written by the process that started this one.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path


def main() -> int:
    """Read the job and write the file."""
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    import litert_torch
    import torch

    program = torch.export.load(job["program"])
    arguments, _ = program.example_inputs
    with torch.enable_grad():
        model = litert_torch.convert(program.module(), tuple(arguments))
    to = Path(job["to"])
    if job["precision"] == "fp32":
        model.export(str(to))
        return 0
    from ai_edge_quantizer import qtyping, quantizer

    fp32 = Path(job["program"]).with_suffix(".tflite")
    model.export(str(fp32))
    int8 = quantizer.Quantizer(str(fp32))
    for path in job["int8_paths"]:
        int8.add_dynamic_config(
            regex=scope_of(path),
            operation_name=qtyping.TFLOperationName.FULLY_CONNECTED,
            num_bits=8,
        )
    int8.quantize().export_model(str(to))
    return 0


def scope_of(path: str) -> str:
    """Return the pattern of names of operators in the block at ``layers.N.NAME``.

    litert-torch names operators by modules with their class, such as ``...Layer_0/...Ffn_ffn/``.
    """
    _, index, block = path.split(".")
    return rf".*_{re.escape(index)}/[^/;]*_{re.escape(block)}/.*"


if __name__ == "__main__":
    sys.exit(main())
