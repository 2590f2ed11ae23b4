"""Who may import whom, and one door for each vendor. See CONTRIBUTING for the map."""

import ast
import subprocess
import sys

import package_map
import pytest
from sources import OURS, ROOT, nodes_of, sources, text_of, tree_of

# From the bottom up: a package imports from layers below its own, and from none beside it. So no
# two packages import each other, imports inside functions counted.
LAYERS = (
    ("nas.core",),
    ("predictors.meters", "search_spaces.architecture"),
    ("search_spaces",),
    ("search_spaces.space", "search_spaces.pretrained.files", "nas.tasks.base"),
    ("nas.pareto", "nas.tasks.audio", "nas.tasks.text", "nas.tasks.vision"),
    (
        "search_spaces.cost",
        "search_spaces.pretrained.families",
        "nas.samplers",
        "nas.tasks.sequences",
        "nas.tasks.transcription",
    ),
    ("search_spaces.models", "search_spaces.pretrained.gguf"),
    ("search_spaces.compression", "search_spaces.pretrained"),
    ("search_spaces.runtimes",),
    (
        "predictors.measurement",
        "predictors.energy.learners",
        "search_spaces.pretrained.writing",
        "nas.tasks.embeddings",
    ),
    ("predictors", "predictors.energy", "predictors.labels", "nas.tasks"),
    ("predictors.campaign", "nas.training"),
    ("nas.inheriting",),
    ("nas.records",),
    ("nas.evaluation", "nas.store"),
    ("nas.searching.gating", "nas.exporting.formats"),
    ("nas.searching.calibration",),
    ("nas.searching.controller", "nas.exporting"),
    ("nas.cluster",),
    ("nas.searching",),
    ("nas.analysis", "nas.measuring"),
    ("nas.charts",),
    ("nas.reporting", "nas.cli.options", "nas.cli.output"),
    ("nas.cli.shell",),
    ("nas.cli",),
    ("nas",),
    ("nas.cli.commands",),
)
# Package -> all of ours that it and what is below it may import.
ONLY = {
    "nas.core": ("nas.core",),
    "nas.pareto": ("nas.core", "nas.pareto", "nas.tasks.base"),
    "nas.samplers": ("nas.core", "nas.pareto", "nas.samplers", "nas.tasks.base"),
    "nas.tasks": ("nas.core", "nas.tasks", "search_spaces"),
    "predictors": ("nas.core", "predictors", "search_spaces"),
    "predictors.meters": ("nas.core", "predictors.meters"),
    "search_spaces": ("nas.core", "search_spaces"),
}
# Vendor -> the files that may import it.
DOORS = {
    "pynvml": ("predictors/meters/nvml.py",),
    "shtab": ("nas/cli/shell/completion.py",),
    "zeus": ("predictors/meters/zeus.py",),
    "torchao": (
        "search_spaces/compression/quantize.py",
        "search_spaces/runtimes/executorch_runtime.py",
    ),
    "optuna": (
        "experiments/benchmarks/runtime/driver_variants.py",
        "experiments/benchmarks/sampling/peers/optuna_peers.py",
        "experiments/benchmarks/sampling/peers/search_peer.py",
        "experiments/benchmarks/sampling/optuna_internals.py",
        "experiments/benchmarks/sampling/search_overhead.py",
        "experiments/benchmarks/sampling/warm_start.py",
        "nas/samplers/columns.py",
        "nas/samplers/ehvi.py",
        "nas/samplers/history.py",
        "nas/store/database.py",
        "nas/store/optuna_export.py",
        "nas/store/optuna_trials.py",
        "nas/searching/controller/sampler_by_name.py",
        "nas/store/storage.py",
    ),
    "ray": (
        "experiments/benchmarks/runtime/chaos.py",
        "experiments/benchmarks/runtime/driver_variants.py",
        "nas/cluster/backend.py",
        "nas/cluster/client.py",
        "nas/cluster/connect.py",
        "nas/cluster/driver.py",
        "nas/cluster/tensorboard.py",
        "nas/cluster/measuring.py",
        "nas/cluster/ray_internals.py",
        "nas/cluster/tune_memory.py",
        "nas/cluster/roles.py",
        "nas/cluster/shipping.py",
        "nas/cluster/trial_worker.py",
        "nas/cluster/waits.py",
    ),
    "matplotlib": (
        "experiments/benchmarks/runtime/scale/plots.py",
        "experiments/benchmarks/sampling/plots.py",
        "experiments/benchmarks/training/supernet_cost.py",
        "experiments/campaign_report.py",
        "nas/charts/matplotlib_figure.py",
        "predictors/energy/plots.py",
    ),
    "botorch": ("experiments/benchmarks/sampling/peers/botorch_peer.py",),
    "pymoo": ("experiments/benchmarks/sampling/peers/pymoo_peer.py",),
    "syne_tune": ("experiments/benchmarks/sampling/peers/syne_peers.py",),
    "rich": ("nas/cli/output/progress.py",),
    "torch_pruning": ("experiments/benchmarks/compression/cut_quality.py",),
    "onnx": ("search_spaces/runtimes/onnx_graph.py",),
    # Besides converters: ``serve`` alone loads files, with nothing of ours.
    "onnxruntime": (
        "search_spaces/runtimes/onnxruntime_runtime.py",
        "search_spaces/runtimes/serve.py",
    ),
    "openvino": (
        "search_spaces/runtimes/openvino_runtime.py",
        "search_spaces/runtimes/serve.py",
    ),
    "nncf": ("search_spaces/runtimes/openvino_runtime.py",),
    "litert_torch": ("search_spaces/runtimes/litert_worker.py",),
    "ai_edge_quantizer": ("search_spaces/runtimes/litert_worker.py",),
    "ai_edge_litert": ("search_spaces/runtimes/serve.py",),
    "executorch": (
        "search_spaces/runtimes/executorch_runtime.py",
        "search_spaces/runtimes/serve.py",
    ),
    "datasets": ("nas/tasks/hf.py",),
    "pyarrow.fs": ("nas/core/remote.py",),
    "tokenizers": ("nas/tasks/text/tokenize.py",),
    "transformers": (
        "experiments/benchmarks/compression/checkpoint_joules.py",
        "nas/exporting/formats/stock_worker.py",
    ),
    "gguf": ("search_spaces/pretrained/gguf/package.py",),
    "huggingface_hub": ("search_spaces/pretrained/files/hub.py",),
    "jiwer": ("nas/tasks/transcription/error_rates.py",),
    "rouge_score": ("nas/tasks/sequences/summary_score.py",),
    "sacrebleu": ("nas/tasks/sequences/translation_score.py",),
    "pycocotools": ("nas/tasks/vision/box_score.py",),
}


def imports(path, *, top_level_only=False):
    text = text_of(path)
    for node in tree_of(text).body if top_level_only else nodes_of(text):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name, package):
    return name == package or name.startswith(package + ".")


def package_of(path):
    """The package that a file is in."""
    return ".".join(path.parent.relative_to(ROOT).parts)


def package_named(name):
    """The package of ours that an imported name is of, ``None`` for others' names."""
    parts = name.split(".")
    while parts and not (ROOT.joinpath(*parts) / "__init__.py").exists():
        parts.pop()
    return ".".join(parts) if parts and parts[0] in OURS else None


def imported_packages(path):
    """The packages of ours that a file imports, wherever in it."""
    for node in nodes_of(text_of(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from filter(None, map(package_named, names))


def test_packages_import_only_from_layers_below():
    rank = {package: i for i, layer in enumerate(LAYERS) for package in layer}
    for path in sources():
        package = package_of(path)
        if package.split(".")[0] == "experiments":
            continue
        assert package in rank, f"{package} is in no layer"
        for other in set(imported_packages(path)) - {package}:
            assert rank[other] < rank[package], f"{path.relative_to(ROOT)} imports {other}"


@pytest.mark.parametrize("package", ONLY)
def test_what_describes_and_measures_knows_nothing_of_searches(package):
    for path in sources():
        if within(package_of(path), package):
            for other in imported_packages(path):
                allowed = any(within(other, one) for one in ONLY[package])
                assert allowed, f"{path.relative_to(ROOT)} imports {other}"


def test_folders_stay_small():
    for folder in package_map.folders():
        assert len(list(folder.glob("*.py"))) <= 20, folder


def test_the_map_is_as_the_packages_say():
    page = package_map.PAGE.read_text()
    assert package_map.with_map(page) == page, "python tests/package_map.py writes it"


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


# The files that may use private names of a vendor: see their contract tests.
ADAPTERS = {
    "torch": ("search_spaces/compression/torch_internals.py",),
    "torchao": ("search_spaces/compression/quantize.py",),
    "ray": ("nas/cluster/ray_internals.py",),
}


def private_names(source):
    """Private names of vendors that ``source`` imports or reaches by attributes."""
    names = []
    for node in nodes_of(source):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names.append(ast.unparse(node))
    for name in names:
        parts = name.split(".")
        is_private = any(part.startswith("_") and not part.startswith("__") for part in parts)
        if parts[0] in ADAPTERS and (is_private or name.startswith("ray.experimental")):
            yield name


def test_private_names_of_vendors_are_in_their_adapters():
    for path in sources():
        for name in private_names(text_of(path)):
            assert str(path.relative_to(ROOT)) in ADAPTERS[name.partition(".")[0]], (path, name)


@pytest.mark.parametrize(
    ("source", "is_private"),
    [
        ("torch._dynamo.reset()", True),
        ("torch._int_mm(a, b)", True),
        ("from torch._inductor import config", True),
        ("from torchao.quantization.quantize_.common import _choose", True),
        ("torch.compiler.reset()", False),
        ("torch.__version__", False),
        ("from torchao.quantization import quantize_", False),
        ("self._torch.reset()", False),
        ("ray._private.services.get_node_ip_address()", True),
        ("from ray.experimental import internal_kv", True),
        ("from ray._raylet import Config", True),
        ("ray.nodes()", False),
    ],
)
def test_private_names_are_seen(source, is_private):
    assert bool(list(private_names(source))) == is_private


def test_describing_models_needs_no_torch():
    for folder in (".", "architecture", "space", "cost"):
        for path in sorted((ROOT / "search_spaces" / folder).glob("*.py")):
            assert not any(within(n, "torch") for n in imports(path, top_level_only=True)), path


def unsafe_calls(source):
    """Calls that run what a file says, by their names: ``model.eval()`` is none."""
    for node in nodes_of(source):
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
        assert not list(unsafe_calls(text_of(path))), path


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
            "import predictors.measurement.worker, search_spaces.models.build, "
            "search_spaces.compression.apply",
            ("ray", "optuna"),
        ),
        ("import nas.store.run_file", ("ray", "optuna", "torch")),
        ("import nas.searching.study, nas.searching.loop, nas.searching.in_process", ("ray",)),
    ],
)
def test_what_is_imported_when(statement, absent):
    code = f"import sys; {statement}; print([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
