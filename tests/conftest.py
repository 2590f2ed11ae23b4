"""For every test: one thread for small matrices, the path to ``fakes``, how hypothesis runs."""

import hashlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

# Before numpy: with more, threads of small products wait for each other, and tests take twice as
# long, on a busy machine four times.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray's workers are nice by default: beside the other half of the tests they would hardly run.
os.environ.setdefault("RAY_worker_niceness", "0")

# A shell's background job ignores Ctrl-C and, by nohup, a hangup, and so would what tests start.
for number, usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

import hypothesis  # noqa: E402
import pytest  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))

# Files that parse every source file, which one process then does once.
PARSING = {"test_layers.py", "test_function_parameters.py", "test_optuna.py"}
# Files that take more than 10 s of a core; a worker that began one last would work alone.
LONGEST = {
    "test_campaign.py",
    "test_campaign_command.py",
    "test_campaign_records.py",
    "test_campaign_tools.py",
    "test_cli.py",
    "test_compression.py",
    "test_compression_benchmark.py",
    "test_dense_search.py",
    "test_encoder_decoder.py",
    "test_export_formats.py",
    "test_exporter_contract.py",
    "test_fuzz.py",
    "test_in_process.py",
    "test_killed_searches.py",
    "test_layers.py",
    "test_measure.py",
    "test_plugins.py",
    "test_prepared_models.py",
    "test_refine.py",
    "test_sequence_kinds_search.py",
    "test_slices.py",
    "test_supernet_search.py",
    "test_translation_search.py",
    "test_user_folders.py",
    "test_whole_search.py",
}

# Examples are judged by what they show; on a busy machine any of them may be slow.
hypothesis.settings.register_profile("joulenas", deadline=None)
hypothesis.settings.load_profile("joulenas")


@pytest.fixture(scope="session", autouse=True)
def locks_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Devices are locked for this run of the tests alone, not for the whole machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOULENAS_LOCK_FOLDER", str(tmp_path_factory.mktemp("locks")))
        yield


@pytest.fixture(scope="session", autouse=True)
def labels_of_each_test(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Searches of a test start without the labels of other searches."""
    base = tmp_path_factory.mktemp("labels")

    def folder(*_: str) -> Path:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
        own = base / hashlib.sha256(test.encode()).hexdigest()[:16]
        own.mkdir(exist_ok=True)
        return own

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("predictors.labels.cache.cache_folder", folder)
        yield


@pytest.fixture(scope="module", autouse=True)
def ray_is_left_as_found() -> Iterator[None]:
    """Fail a module that leaves this process connected to Ray, in place of the next one.

    Within a module, a fixture may keep Ray up for several tests.
    """

    def is_connected() -> bool:
        ray = sys.modules.get("ray")
        return ray is not None and ray.is_initialized()

    before = is_connected()
    yield
    if is_connected() and not before:
        sys.modules["ray"].shutdown()
        pytest.fail("Ray must be shut down where a module of tests ends")


@pytest.fixture
def measured_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks without integers are measured op by op, as where there is no C++ compiler.

    For searches whose subject is not how a network runs: compiling takes longer than the rest.
    """
    _without_compiler(monkeypatch)


@pytest.fixture(scope="module")
def all_measured_eagerly() -> Iterator[None]:
    """The same for all tests of a file, and for its fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        _without_compiler(patch)
        yield


@pytest.fixture(scope="module")
def all_measured_by_forks(all_measured_eagerly: None) -> Iterator[None]:
    """And each in a fork of one process that has torch, not in a new interpreter.

    For files whose subject is not how processes start; ``test_fork_server.py`` compares both.
    """
    from predictors.measurement import process
    from predictors.measurement.forked_worker import ForkedWorker

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_FreshWorker", ForkedWorker)
        yield


@pytest.fixture(scope="module")
def counted_joules(
    all_measured_by_forks: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The name of a meter that agrees with itself, here and in processes that are started."""
    import counting_meter

    folder = tmp_path_factory.mktemp("meters")
    counting_meter.register(folder)
    paths = [str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        yield counting_meter.NAME
        counting_meter.stop_counting()


def _without_compiler(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("CXX", "no-such-compiler")


# First: pytest-xdist itself reads the groups in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for pytest-xdist: those with Ray together and first, others by their file.

    Two Ray searches at once would fight for two cores; fixtures of a file are made once; and what
    takes longest must not start last. (Without ``--no-loadscope-reorder``, pytest-xdist would sort
    groups by how many tests they have.)
    """
    for item in items:
        group = "ray" if item.get_closest_marker("e2e") else item.path.name
        if item.path.name in PARSING:
            group = "sources"
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    if item.get_closest_marker("e2e") is not None:
        return 0
    return 1 if item.path.name in LONGEST else 2
