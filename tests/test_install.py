"""What is installed: for a search what it needs, for tests the rest."""

import re
import shutil
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Page builders, clouds and test tools, by the beginning of a name.
NOT_FOR_SEARCHES = (
    "boto",
    "flask",
    "ghp-import",
    "google-",
    "griffe",
    "hypothesis",
    "kubernetes",
    "mkdocs",
    "moto",
    "mypy",
    "opencensus",
    "opentelemetry",
    "pytest",
    "ruff",
    "s3transfer",
    "tensorboard-data-server",
)


def closure(requirements):
    """Names of all packages that these requirements install, by installed metadata."""
    names, open_ = set(), [(Requirement(text), "") for text in requirements]
    seen = set()
    while open_:
        requirement, extra = open_.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        names.add(name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            try:
                needs = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                # A GPU's packages, which a machine without one does not have.
                continue
            open_ += [(Requirement(text), wanted) for text in needs]
    return names


def unneeded(names):
    return sorted(name for name in names if name.startswith(NOT_FOR_SEARCHES))


def test_a_search_installs_no_page_builder_cloud_or_test_package():
    assert unneeded(closure(PROJECT["dependencies"])) == []
    extras = PROJECT["optional-dependencies"]
    # The same walk sees them where they are.
    assert {"moto", "pytest", "boto3", "flask"} <= set(unneeded(closure(extras["dev"])))
    assert "mkdocs" in unneeded(closure(extras["docs"]))


def test_every_package_of_a_search_is_pinned():
    pinned = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    installed = {name for name in closure(PROJECT["dependencies"]) if _version(name) is not None}
    assert installed - pinned - {"setuptools"} == set()


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_search_installs_less_than_make_test(tmp_path):
    def commands(target):
        done = subprocess.run(
            ["make", "-n", target, f"VENV={tmp_path / 'venv'}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return [line for line in done.stdout.splitlines() if "pip install" in line]

    (search,) = commands("search")
    assert search.endswith("--constraint constraints.txt --editable .")
    for target in ("test", "lint", "docs"):
        first, then = commands(target)
        assert first == search
        assert then.endswith("--constraint constraints.txt --editable '.[dev]'")
