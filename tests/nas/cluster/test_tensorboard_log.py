"""TensorBoard files of a run, read back by TensorBoard's own reader."""

import pytest
import ray
from run_fakes import make_run
from search_fakes import SPACE, finished, make_session, make_trial
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import nas
from experiments.benchmarks.runtime.driver_variants import Formula
from nas.cli.main import main
from nas.cluster.connect import cluster
from nas.cluster.tensorboard import TensorBoardLog, figures, log_trial
from nas.records.config import SearchConfig
from nas.records.rungs import RungPoint
from nas.searching import study
from nas.store.driver import Driver
from nas.tasks.registry import get_task
from search_spaces.space.encoding import encode
from search_spaces.space.sampling import largest, smallest

PREFIX = "ray/tune/"


def read(folder):
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def last(found, name):
    return found.Scalars(PREFIX + name)[-1].value


def hyper_parameters(found):
    """Of the plug-in's own data, where TensorBoard's page finds them."""
    from tensorboard.plugins.hparams import plugin_data_pb2

    content = found.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    data = plugin_data_pb2.HParamsPluginData.FromString(content)
    return {
        name: getattr(value, value.WhichOneof("kind"))
        for name, value in data.session_start_info.hparams.items()
    }


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", trials=6)


def test_a_trial_is_there_with_quality_joules_seconds_and_its_genes(run, tmp_path):
    record = next(r for r in run.trials() if r.state == "complete")
    log_trial(record, SPACE, tmp_path / "logs")
    found = read(tmp_path / "logs" / f"trial-{record.number}")
    for name, value in figures(record).items():
        assert last(found, name) == pytest.approx(value, rel=1e-6), name
    assert {"quality", "energy_j_per_sample", "params"} <= set(figures(record))
    genes = encode(record.architecture, SPACE)
    shown = hyper_parameters(found)
    assert shown.keys() == genes.keys()
    assert all(shown[name] == ("none" if v is None else v) for name, v in genes.items())


def test_joules_per_token_are_not_called_joules_per_sample(run, tmp_path):
    record = next(r for r in run.trials() if r.state == "complete")
    log_trial(record, SPACE, tmp_path, "output token")
    found = read(tmp_path / f"trial-{record.number}")
    assert last(found, "energy_j_per_output_token") == pytest.approx(record.energy_j)
    assert PREFIX + "energy_j_per_sample" not in found.Tags()["scalars"]


def test_a_stopped_trial_shows_its_curve_and_no_joules(tmp_path):
    curve = (RungPoint(1, 0.4, 0.01), RungPoint(3, 0.6, 0.01))
    record = make_trial(
        7, "stopped", smallest(SPACE), reason="behind", curve=curve, planned_epochs=9
    )
    log_trial(record, SPACE, tmp_path)
    found = read(tmp_path / "trial-7")
    points = [(e.step, round(e.value, 4)) for e in found.Scalars(PREFIX + "curve_quality")]
    assert points == [(1, 0.4), (3, 0.6)] and last(found, "stopped_early") == 1
    assert PREFIX + "energy_j_per_sample" not in found.Tags()["scalars"]


def test_what_ended_while_nobody_logged_is_written_by_the_next_driver(run):
    folder = run.tensorboard_folder
    session = make_session(run.folder, create=False, trials=6, baselines=(largest(SPACE),))
    log = TensorBoardLog(SPACE, folder)
    records = [r for r in session.records() if r.state == "complete"]
    log_trial(records[0], SPACE, folder)
    before = next((folder / f"trial-{records[0].number}").iterdir()).stat().st_mtime_ns
    # Half written by a driver that was killed.
    (folder / f".trial-{records[1].number}.tmp").mkdir()
    log.take_up(session.records())
    names = {path.name for path in folder.iterdir()}
    assert names == {f"trial-{r.number}" for r in records} and len(records) > 3
    after = next((folder / f"trial-{records[0].number}").iterdir()).stat().st_mtime_ns
    assert after == before


def test_a_trial_is_logged_when_it_has_ended(run):
    log = TensorBoardLog(SPACE, run.tensorboard_folder)
    session = make_session(
        run.folder, create=False, trials=8, baselines=(largest(SPACE),), listener=log
    )
    candidate = session.next_candidate()
    path = run.tensorboard_folder / f"trial-{candidate.number}"
    assert not path.exists()
    session.finish(finished(candidate))
    assert last(read(path), "quality") == pytest.approx(finished(candidate).quality)


def test_a_disk_that_is_full_ends_the_log_and_not_the_search(run, monkeypatch, caplog):
    session = make_session(run.folder, create=False, trials=6, baselines=(largest(SPACE),))
    log, calls = TensorBoardLog(SPACE, run.tensorboard_folder), []

    def full(*arguments):
        calls.append(arguments)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nas.cluster.tensorboard.log_trial", full)
    log.take_up(session.records())
    assert len(calls) == 1 and "No space left" in caplog.text


def test_a_log_that_is_not_offered_is_refused_with_the_nearest(tmp_path, capsys):
    with pytest.raises(ValueError, match="log must be tensorboard, got 'wandb'"):
        Driver(log="wandb")
    arguments = ["search", "quickstart", "--log", "tensorbord", "--run", str(tmp_path / "r")]
    assert main(arguments) == 2
    assert "did you mean 'tensorboard'" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.e2e
def test_a_search_logs_through_ray_and_goes_on_logging_when_resumed(tmp_path, monkeypatch):
    # A trial of formulas: what is true here is Ray, its callbacks and the run folder.
    monkeypatch.setattr(
        study, "TrainingEvaluator", lambda config, *_: Formula(get_task("digits").workload(128))
    )
    config = SearchConfig(task="digits", space=SPACE, trials=2, meter="estimate", protocol="quick")
    # One Ray for both, to which this process is connected.
    with cluster(None, 2, "cpu"):
        address = ray.get_runtime_context().gcs_address
        run = nas.search(config, tmp_path / "run", log="tensorboard", address=address)
        assert {p.name for p in run.tensorboard_folder.iterdir()} == {"trial-0", "trial-1"}
        more = nas.resume(run.folder, trials=3)
    assert more.driver.log == "tensorboard" and len(more.trials()) == 3
    for record in more.trials():
        found = read(run.tensorboard_folder / f"trial-{record.number}")
        assert last(found, "quality") == pytest.approx(record.quality)
        assert last(found, "energy_j_per_sample") == pytest.approx(record.energy_j)
        assert last(found, "energy_is_measured") == 0
