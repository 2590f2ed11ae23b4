"""Who may import whom, and one door for each vendor. See CONTRIBUTING for the map."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("search_spaces", "predictors", "nas", "experiments")

# Folder -> the packages of ours that files in it may import.
MAY_IMPORT = {
    "search_spaces": ("search_spaces",),
    "predictors/meters": ("predictors.meters",),
    "predictors/campaign": ("predictors.campaign", "predictors.meters", "search_spaces"),
    "predictors/learned": (
        "predictors.learned",
        "predictors.meters.base",
        "predictors.campaign.records",
        "search_spaces",
    ),
    "nas/pareto": ("nas.pareto",),
    "nas/tasks": ("nas.tasks", "search_spaces.workload"),
    "nas/training": (
        "nas.training",
        "nas.tasks",
        "nas.files",
        "search_spaces",
        "predictors.meters",
    ),
    "nas/searching": (
        "nas.searching",
        "nas.training",
        "nas.tasks",
        "nas.pareto",
        "nas.files",
        "predictors",
        "search_spaces",
    ),
    "nas/exporting": (
        "nas.exporting",
        "nas.searching",
        "nas.training",
        "nas.tasks",
        "nas.pareto",
        "nas.files",
        "predictors",
        "search_spaces",
    ),
}
# Vendor -> the files that may import it.
DOORS = {
    "pynvml": ("predictors/meters/nvml.py",),
    "zeus": ("predictors/meters/zeus.py",),
    "torchao": (
        "search_spaces/compression/qat.py",
        "search_spaces/compression/quantize.py",
    ),
    "optuna": ("nas/searching/samplers.py", "nas/searching/storage.py"),
    "ray": ("nas/searching/ray_driver.py",),
    "matplotlib": (
        "experiments/campaign_report.py",
        "nas/pareto/plots.py",
        "predictors/learned/plots.py",
    ),
    "rich": ("nas/cli/progress.py",),
}


def sources():
    for package in OURS:
        yield from sorted((ROOT / package).rglob("*.py"))


def imports(path, *, top_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name, package):
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_rooms_import_only_what_they_may(folder):
    for path in sorted((ROOT / folder).rglob("*.py")):
        for name in imports(path):
            if name.split(".")[0] in OURS:
                allowed = any(within(name, p) or within(p, name) for p in MAY_IMPORT[folder])
                assert allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_nothing_imports_experiments():
    for path in sources():
        if path.relative_to(ROOT).parts[0] != "experiments":
            assert not any(within(n, "experiments") for n in imports(path)), path


@pytest.mark.parametrize("vendor", DOORS)
def test_each_vendor_has_one_door(vendor):
    found = {
        str(path.relative_to(ROOT))
        for path in sources()
        if any(within(name, vendor) for name in imports(path))
    }
    assert found == set(DOORS[vendor])


def test_describing_models_needs_no_torch():
    for path in sorted((ROOT / "search_spaces").glob("*.py")):
        assert not any(within(n, "torch") for n in imports(path, top_level_only=True)), path


def test_nothing_unpickles_or_evaluates():
    banned = ("pickle.load", "eval(", "exec(", "shell=True", "weights_only=False", "yaml.unsafe")
    for path in sources():
        text = path.read_text().replace(".eval()", "")
        assert not [word for word in banned if word in text], path


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import nas.cli.main as m; m.build_parser()", ("torch", "ray", "optuna", "numpy")),
        ("import nas", ("torch", "ray", "optuna", "numpy")),
        (
            "import predictors.campaign.worker, search_spaces.models.build, "
            "search_spaces.compression.apply",
            ("ray", "optuna"),
        ),
        ("import nas.searching.run", ("ray", "optuna", "torch")),
    ],
)
def test_what_is_imported_when(statement, absent):
    code = f"import sys; {statement}; print([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
