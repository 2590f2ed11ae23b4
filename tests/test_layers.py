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
    "predictors/meters": ("predictors.meters", "search_spaces.names"),
    "predictors/campaign": ("predictors.campaign", "predictors.meters", "search_spaces"),
    "predictors/learned": (
        "predictors.learned",
        "predictors.meters.base",
        "predictors.campaign.records",
        "search_spaces",
    ),
    "nas/pareto": ("nas.pareto", "nas.tasks.metric", "nas.units"),
    "nas/samplers": ("nas.samplers", "nas.pareto"),
    "nas/tasks": (
        "nas.tasks",
        "nas.units",
        "search_spaces.names",
        "search_spaces.nearest",
        "search_spaces.plain_yaml",
        "search_spaces.plugins",
        "search_spaces.user_folders",
        "search_spaces.workload",
    ),
    "nas/training": (
        "nas.training",
        "nas.tasks",
        "nas.files",
        "nas.remote",
        "nas.patience",
        "nas.typed",
        "nas.versions",
        "search_spaces",
        "predictors.meters",
    ),
    "nas/searching": (
        "nas.searching",
        "nas.units",
        "nas.samplers",
        "nas.training",
        "nas.tasks",
        "nas.pareto",
        "nas.files",
        "nas.recorded",
        "nas.remote",
        "nas.interrupts",
        "nas.patience",
        "nas.process_identity",
        "nas.scratch",
        "nas.typed",
        "nas.versions",
        "predictors",
        "search_spaces",
    ),
    "nas/plots": (
        "nas.plots",
        "nas.units",
        "nas.searching",
        "nas.tasks.metric",
        "nas.pareto",
        "nas.files",
        "nas.remote",
        "search_spaces",
    ),
    "nas/reporting": (
        "nas.reporting",
        "nas.plots.blocks",
        "nas.plots.axis",
        "nas.searching",
        "nas.tasks.metric",
        "nas.pareto",
        "nas.files",
        "nas.remote",
        "nas.versions",
        "search_spaces",
    ),
    "nas/exporting": (
        "nas.exporting",
        "nas.units",
        "nas.searching",
        "nas.training",
        "nas.tasks",
        "nas.pareto",
        "nas.files",
        "nas.remote",
        "nas.patience",
        "nas.scratch",
        "nas.typed",
        "nas.versions",
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
    "optuna": (
        "experiments/benchmarks/search/optuna_peers.py",
        "experiments/benchmarks/search_overhead.py",
        "experiments/benchmarks/warm_start.py",
        "nas/samplers/columns.py",
        "nas/samplers/ehvi.py",
        "nas/samplers/history.py",
        "nas/searching/journal.py",
        "nas/searching/journal_memory.py",
        "nas/searching/journal_lines.py",
        "nas/searching/journal_records.py",
        "nas/searching/patient_storage.py",
        "nas/searching/samplers.py",
        "nas/searching/storage.py",
    ),
    "ray": (
        "experiments/benchmarks/chaos.py",
        "experiments/benchmarks/overhead/variants.py",
        "nas/searching/halving_scheduler.py",
        "nas/searching/ray_client.py",
        "nas/searching/ray_cluster.py",
        "nas/searching/ray_driver.py",
        "nas/searching/ray_logging.py",
        "nas/searching/ray_measure.py",
        "nas/searching/ray_memory.py",
        "nas/searching/ray_roles.py",
        "nas/searching/ray_shipping.py",
        "nas/searching/ray_ending.py",
        "nas/searching/ray_trial.py",
        "nas/searching/ray_waits.py",
    ),
    "matplotlib": (
        "experiments/benchmarks/scale/plots.py",
        "experiments/benchmarks/search/plots.py",
        "experiments/benchmarks/supernet_cost.py",
        "experiments/campaign_report.py",
        "nas/plots/architecture.py",
        "nas/plots/style.py",
        "predictors/learned/plots.py",
    ),
    "botorch": ("experiments/benchmarks/search/botorch_peer.py",),
    "pymoo": ("experiments/benchmarks/search/pymoo_peer.py",),
    "syne_tune": ("experiments/benchmarks/search/syne_peers.py",),
    "rich": ("nas/cli/progress.py",),
    "onnx": ("nas/exporting/onnx_form.py",),
    "onnxruntime": ("nas/exporting/onnx_form.py",),
    "datasets": ("nas/tasks/hf.py",),
    "pyarrow.fs": ("nas/remote.py",),
    "tokenizers": ("nas/tasks/tokenize.py",),
    "sacrebleu": ("nas/tasks/translation_score.py",),
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


def unsafe_calls(source):
    """Calls that run what a file says, by their names: ``model.eval()`` is none."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        flags = {
            (k.arg, k.value.value) for k in node.keywords if isinstance(k.value, ast.Constant)
        }
        if name in (
            "eval",
            "exec",
            "pickle.load",
            "pickle.loads",
            "yaml.unsafe_load",
            "os.system",
        ):
            yield name
        loaders = {ast.unparse(k.value) for k in node.keywords if k.arg == "Loader"}
        # One of ours is built on yaml.SafeLoader; yaml's own others are not safe.
        if name == "yaml.load" and (not loaders or any(x.startswith("yaml.") for x in loaders)):
            yield name
        if flags & {("shell", True), ("weights_only", False), ("allow_pickle", True)}:
            yield name


def test_nothing_unpickles_or_evaluates():
    for path in sources():
        assert not list(unsafe_calls(path.read_text())), path


@pytest.mark.parametrize(
    ("source", "is_unsafe"),
    [
        ("model.eval()", False),
        ("np.load(p, allow_pickle=False)", False),
        ("eval(text)", True),
        ("exec (text)", True),
        ("pickle.load(f)", True),
        ("torch.load(f, weights_only=False)", True),
        ("subprocess.run(text, shell=True)", True),
        ("np.load(p, allow_pickle=True)", True),
        ("yaml.load(text)", True),
    ],
)
def test_what_is_unsafe_is_seen(source, is_unsafe):
    assert bool(list(unsafe_calls(source))) == is_unsafe


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            # Each of these takes longer to import than the help takes to show.
            "import nas.cli.main as m; m.build_parser().format_help()",
            (
                *("torch", "ray", "optuna", "numpy", "scipy", "sklearn", "matplotlib", "rich"),
                *("yaml", "PIL", "pyarrow", "importlib.metadata", "asyncio", "subprocess"),
            ),
        ),
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
