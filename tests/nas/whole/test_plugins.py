"""The plug-ins of docs/plugins.md, run as written: families, tasks, and who may run them."""

import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import nas
from nas.exporting.export import export
from nas.records.config import GateConfig, SearchConfig
from nas.searching.study import check_fits
from nas.tasks.registry import get_task
from nas.training.config import DistillConfig, TrainingConfig
from nas.training.fit import Setting, fit, fits_in
from predictors.measurement.protocol import Protocol
from predictors.measurement.runner import measure_fresh
from search_spaces import plugins
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.cost.counting import count, count_batch
from search_spaces.cost.memory import peak_memory_of
from search_spaces.models.build import build, build_network
from search_spaces.plugins import Plugin, check_named, load_plugin, name_plugin
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import encode
from search_spaces.space.sampling import mutate, sample, sample_positions

DOCS = (Path(__file__).parents[3] / "docs" / "plugins.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", DOCS, re.DOTALL | re.MULTILINE)
CONFIG, MIXER, NOISE, BOXES, SUMMARIES = PYTHON
(SPACE_YAML,) = re.findall(r"^```yaml\n(.*?)^```", DOCS, re.DOTALL | re.MULTILINE)
SPACE = SearchSpace.from_dict(yaml.safe_load(SPACE_YAML))
DIGITS = get_task("digits").workload(32)


@pytest.fixture(autouse=True)
def own_plugins(tmp_path, monkeypatch):
    """A machine on which nothing was named, and a process that has loaded nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(plugins, "_LOADED", {})
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.delenv(plugins.VARIABLE)
    yield
    for name in [name for name in sys.modules if name.startswith("joulenas_plugin_")]:
        del sys.modules[name]


def written(folder, source, name="plugin.py"):
    (folder / name).write_text(source)
    return folder / name


def members(n, seed=0):
    rng = np.random.default_rng(seed)
    return [sample(SPACE, rng) for _ in range(n)]


def test_its_networks_are_named_and_found_like_ours():
    for architecture in members(20):
        again = Architecture.from_dict(architecture.to_dict())
        assert again == architecture and again.hash == architecture.hash
        assert (
            encode(architecture, SPACE)["token_ratio"] == dict(architecture.extra)["token_ratio"]
        )
        assert mutate(architecture, SPACE, np.random.default_rng(1)) != architecture
    plain = replace(members(1)[0], family="transformer", extra=())
    assert plain.hash != members(1)[0].hash and not SPACE.contains(plain)
    assert members(1)[0].describe().startswith("mixer d")
    assert SPACE.size() == 3 * 2 * 3 * (3 + 9 + 27)
    assert SearchSpace.from_dict(SPACE.to_dict()) == SPACE
    assert len({SPACE, replace(SPACE, extra={"token_ratio": [1]})}) == 2


def test_its_counts_are_those_of_what_is_built(tmp_path):
    name_plugin(written(tmp_path, MIXER))
    check_fits(SPACE, DIGITS)
    for architecture in members(12):
        network = build_network(architecture, DIGITS, generator_seed=0)
        counts = count(architecture, DIGITS)
        assert counts.params == sum(p.numel() for p in network.parameters())
        ran = 0

        def add(module, inputs, output):
            nonlocal ran
            ran += output.numel() * module.in_features

        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(add)
        network(torch.zeros(1, 1, 8, 8))
        assert counts.macs == ran and peak_memory_of(architecture, DIGITS) > 4 * counts.params
    positions = sample_positions(SPACE, 50, np.random.default_rng(0))
    by_position = ArchitectureBatch.from_positions(positions, SPACE)
    assert set(by_position.extra["token_ratio"]) == {0.5, 1, 2}
    half = count_batch(by_position.rows(by_position.extra["token_ratio"] == 0.5), DIGITS)
    assert len(half.total("macs")) == (by_position.extra["token_ratio"] == 0.5).sum()


def test_a_search_is_asked_for_it_as_the_page_says(tmp_path, monkeypatch):
    written(tmp_path, MIXER, "mixer.py")
    (tmp_path / "mixer.yaml").write_text(SPACE_YAML)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(CONFIG, names)
    config = names["config"]
    assert config.space == SPACE and config.plugins[0].path.endswith("mixer.py")
    config.load_plugins()


@pytest.mark.usefixtures("measured_eagerly")
def test_its_networks_are_trained_and_measured_in_a_fresh_process(tmp_path):
    name_plugin(written(tmp_path, MIXER))
    architecture = next(a for a in members(50) if a.d_model == 32 and a.patch_size == 2)
    config = TrainingConfig(epochs=6, learning_rate=5e-3)
    fitted = fit(architecture, Setting(get_task("digits"), DIGITS, seed=0), config)
    assert fitted.validation.value > 0.5
    fast = Protocol(
        "fast", warmup_s=0.0, warmup_iterations=2, window_s=0.02, target_half_width=1.0
    )
    record = measure_fresh(architecture, DIGITS, protocol=fast, meter="estimate")
    assert record.architecture == architecture and record.reading.energy_j > 0


@pytest.mark.parametrize("extra", [[1], {"k": None}, {"k": [1]}, {"k": float("nan")}, "text"])
def test_architectures_of_strangers_are_refused(extra):
    with pytest.raises(ValueError, match="extra must"):
        Architecture.from_dict({**members(1)[0].to_dict(), "extra": extra})


def test_without_its_plugin_a_family_is_not_known():
    with pytest.raises(ValueError, match=r"family must be one of transformer .* got 'mixer'"):
        check_fits(SPACE, DIGITS)
    with pytest.raises(ValueError, match="family must be transformer for this, got mixer"):
        build(members(1)[0], DIGITS)


def test_weights_are_not_shared_with_other_families():
    mixer = members(1)[0]
    assert not fits_in(replace(mixer, family="transformer", extra=()), mixer)
    search = SearchConfig(task="digits", space=SPACE, trials=3)
    distill = replace(search.training, distill=DistillConfig())
    with pytest.raises(ValueError, match="teacher and supernet must be None with family 'mixer'"):
        replace(search, teacher="largest", training=distill)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ffn_precision": ["bf16"]}, r"ffn_precision must be \['fp32'\] for family mixer"),
        ({"ffn_rank": [0.5]}, r"ffn_rank must be \[None\] for family mixer"),
        ({"extra": {"depth": [1]}}, "extra must have names of its own, got 'depth'"),
        ({"extra": {"a b": [1]}}, "extra must have names of its own"),
        ({"extra": {"k": 3}}, "extra k must be a list of numbers or texts, got 3"),
        ({"extra": {"k": [None]}}, "extra k must be a list"),
        ({"extra": [1]}, "extra must be a mapping"),
        ({"family": 3}, "family must be a name"),
        ({"family": "transformer"}, "extra must be left out for family transformer"),
    ],
)
def test_spaces_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        SearchSpace.from_dict({**SPACE.to_dict(), **change})


def test_tasks_and_kinds_come_by_name(tmp_path):
    with pytest.raises(ValueError, match="task must be one of digits or"):
        get_task("noise")
    name_plugin(written(tmp_path, NOISE))
    assert get_task("noise").workload(2).input_shape == (1, 4, 4)
    (tmp_path / "task.yaml").write_text("{name: mine, kind: noise, side: 8}")
    assert get_task(str(tmp_path / "task.yaml")).workload(2).input_shape == (1, 8, 8)
    (tmp_path / "task.yaml").write_text("{name: mine, kind: noise, size: 8}")
    with pytest.raises(ValueError, match=r"task.yaml: has unknown key 'size'"):
        get_task(str(tmp_path / "task.yaml"))


@pytest.mark.parametrize(
    ("source", "name", "least"), [(BOXES, "boxes", 0.4), (SUMMARIES, "summaries", 0.8)]
)
def test_other_outputs_are_learnt_and_judged_by_an_objective(tmp_path, source, name, least):
    name_plugin(written(tmp_path, source))
    task = get_task(name)
    layer = LayerSpec(AttentionSpec(2, 2, 16), FfnSpec(64))
    workload = task.workload(64)
    architecture = Architecture(32, (layer,) * 2, patch_size=4 if workload.is_image else 1)
    config = TrainingConfig(epochs=12, learning_rate=5e-3, shift_pixels=0)
    fitted = fit(architecture, Setting(task, workload, seed=0), config)
    assert fitted.validation.value > least
    # Of summaries that are all right the jackknife says 0.
    assert 0 <= fitted.validation.standard_error < 0.1


def test_a_changed_file_is_refused(tmp_path):
    path = written(tmp_path, NOISE)
    named = name_plugin(path)
    plugins._LOADED.clear()
    path.write_text(NOISE + "\n# changed\n")
    with pytest.raises(ValueError, match=r"plugin.py must be as it was .* has changed"):
        load_plugin(named)
    path.unlink()
    with pytest.raises(ValueError, match=r"plugin.py must be readable"):
        load_plugin(named)


def test_a_run_from_elsewhere_cannot_have_a_file_executed(tmp_path):
    path = written(tmp_path, "raise SystemExit('was executed')")
    import hashlib

    foreign = Plugin(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    config = SearchConfig(task="noise", space=SPACE, trials=3, plugins=(foreign,))
    again = SearchConfig.from_dict(config.to_dict())
    assert again == config
    with pytest.raises(ValueError, match=r"must be named on this machine .* give --plugin"):
        nas.search(again, tmp_path / "run")
    path.write_text(NOISE)
    check_named(name_plugin(path))


def test_other_processes_find_it_in_the_environment(tmp_path):
    named = name_plugin(written(tmp_path, NOISE))
    assert plugins.environment() == {plugins.VARIABLE: os.environ[plugins.VARIABLE]}
    plugins._LOADED.clear()
    assert get_task("noise").name == "noise" and named.sha256 in plugins._LOADED


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "must define one of TASKS, TASK_KINDS, FAMILIES"),
        ("TASKS = 3", "TASKS must be a dictionary by names, got 3"),
        ("TASKS = {3: 4}", "TASKS must be a dictionary"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError"),
        ("import no_such_module", "ModuleNotFoundError"),
    ],
)
def test_files_that_are_no_plugins(tmp_path, source, message):
    with pytest.raises(ValueError, match=rf"plugin.py cannot be loaded: .*{message}") as caught:
        name_plugin(written(tmp_path, source))
    assert "\n" not in str(caught.value)
    assert not plugins._LOADED and not plugins.environment()


def test_two_files_may_not_define_one_name(tmp_path):
    name_plugin(written(tmp_path, NOISE))
    with pytest.raises(ValueError, match=r"other.py defines 'noise' of TASKS, which another"):
        name_plugin(written(tmp_path, NOISE + "\n#", "other.py"))


@pytest.mark.thorough
def test_a_search_over_another_family_and_a_task_goes_the_whole_way(tmp_path, counted_joules):
    config = SearchConfig(
        task="noise",
        space=SPACE,
        trials=2,
        batch_size=32,
        meter=counted_joules,
        protocol="quick",
        training=TrainingConfig(epochs=3, learning_rate=5e-3),
        gate=GateConfig(startup_trials=2),
        plugins=(
            nas.plugin(written(tmp_path, MIXER, "mixer.py")),
            nas.plugin(written(tmp_path, NOISE, "noise.py")),
        ),
    )
    run = nas.search(config, tmp_path / "run", workers=0)
    done = [record for record in run.trials() if record.state == "complete"]
    assert len(done) == 2, [record.cause for record in run.trials()]
    # As in a process of its own, which only has the run folder.
    plugins._LOADED.clear()
    os.environ.pop(plugins.VARIABLE)
    exported = export(nas.load(tmp_path / "run"), done[0].number, tmp_path / "m")
    assert exported.card["architecture"].startswith("mixer d")
    further = nas.resume(tmp_path / "run", trials=3)
    assert sum(record.state == "complete" for record in further.trials()) == 3
    (tmp_path / "noise.py").write_text(NOISE + "\n# changed\n")
    plugins._LOADED.clear()
    with pytest.raises(ValueError, match=r"noise.py must be as it was"):
        nas.resume(tmp_path / "run", trials=4)
