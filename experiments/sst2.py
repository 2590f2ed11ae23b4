"""The task file of SST-2's sentences: ``python -m experiments.sst2 DATA FOLDER [--samples N]``.

``DATA`` has the files ``stsa.binary.train``, ``.dev`` and ``.test`` with ``label text`` in each
line. With ``--samples`` the training split is that many sentences, drawn once in a fixed order.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from nas.core.files import write_text

# The longest sentence has 66 tokens of BERT's tokenizer; few have more than 48.
_TOKENS = 64


def write_task(data: Path, folder: Path, samples: int | None = None) -> Path:
    """Write the task file, and a smaller training split where asked for; return its path.

    Raises:
        ValueError: the data lack a file, or have fewer sentences than ``samples``.
    """
    splits = {"train": "train", "validation": "dev", "test": "test"}
    paths = {split: (data / f"stsa.binary.{name}").resolve() for split, name in splits.items()}
    for path in paths.values():
        if not path.is_file():
            raise ValueError(f"DATA must have the file {path.name}, got {data}")
    folder.mkdir(parents=True, exist_ok=True)
    name = "sst2"
    if samples is not None:
        lines = paths["train"].read_text(encoding="utf-8").splitlines()
        if not 1 <= samples <= len(lines):
            raise ValueError(f"--samples must be in 1..{len(lines)}, got {samples}")
        drawn = random.Random(0).sample(lines, samples)
        name, paths["train"] = f"sst2-{samples}", (folder / f"train-{samples}.txt").resolve()
        write_text(paths["train"], "".join(f"{line}\n" for line in drawn))
    keys = [f"{split}: {path}" for split, path in paths.items()]
    content = [f"name: {name}", "kind: text_classification", *keys, f"sequence_length: {_TOKENS}"]
    write_text(folder / f"{name}.yaml", "\n".join(content) + "\n")
    return folder / f"{name}.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.sst2", description=__doc__.splitlines()[0]
    )
    parser.add_argument("data", type=Path, help="folder of the sentences")
    parser.add_argument("folder", type=Path, help="folder of the task file")
    parser.add_argument("--samples", type=int, help="training sentences (default: all)")
    arguments = parser.parse_args(argv)
    try:
        print(write_task(arguments.data, arguments.folder, arguments.samples))
    except ValueError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
