"""Searches whose weights, checkpoints and results are not in the run folder."""

import json
import shutil
import time
from dataclasses import replace
from functools import partial

import pytest
from fault_fakes import wait_for
from forking import Forked
from run_fakes import make_run
from s3_fakes import CREDENTIALS, refusing_server, s3_server, url
from search_fakes import SPACE, changed, finished, make_session

import nas
from nas.cli.main import main
from nas.cli.options.storage import storage_of
from nas.cluster import connect as ray_cluster
from nas.cluster.trial_worker import evaluate_trial
from nas.core.files import place_at, read_json, write_json
from nas.core.remote import RemoteError
from nas.records.config import SearchConfig
from nas.records.replicas import RESULT, pooled, replica_folder, result_in, save_scores
from nas.records.rungs import HalvingConfig
from nas.records.spent import SPENT
from nas.searching.controller.refine import Refinement
from nas.searching.loop import adopt_results
from nas.store import run_file
from nas.training.config import DistillConfig, TrainingConfig
from search_spaces.space import SearchSpace

pytestmark = pytest.mark.usefixtures("credentials")


@pytest.fixture
def credentials(monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def s3():
    with s3_server() as port:
        yield port


def test_storage_names_a_database_a_place_or_one_of_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    database, store = "postgresql://me@h/d", "s3://bucket/runs?region=eu-west-1"
    assert storage_of(None) == {}
    assert storage_of([database, store]) == {"storage": database, "files_at": store}
    assert storage_of([store, database]) == {"storage": database, "files_at": store}
    assert storage_of(["./kept"]) == {"files_at": str(tmp_path / "kept")}
    assert storage_of(["bogus"]) == {"storage": "bogus"}
    with pytest.raises(ValueError, match="a place for files once"):
        storage_of([store, "/kept"])
    with pytest.raises(ValueError, match="a database for the study once") as caught:
        storage_of([database, "postgresql://me:SECRET@h/d"])
    assert "SECRET" not in str(caught.value)
    with pytest.raises(ValueError, match="no credentials") as caught:
        storage_of(["s3://me:SECRET@bucket"])
    assert "SECRET" not in str(caught.value)


def test_a_run_knows_where_its_files_are(tmp_path, capsys):
    kept = tmp_path / "kept"
    run = make_run(tmp_path / "run", trials=3, files_at=str(kept))
    assert run_file.load(run.folder).config.files_at == str(kept)
    assert run.weights_path(2) == kept / run.name / "trials" / "2" / "model.safetensors"
    assert run.teacher_folder.parent == run.supernet_folder.parent == kept / run.name
    assert run.inputs_place == kept / run.name / "inputs.npy" != run.inputs_path
    # Two runs at one place are apart, and a run without one has all in its folder.
    other = make_run(tmp_path / "other", trials=1, files_at=str(kept))
    assert other.place != run.place
    plain = make_run(tmp_path / "plain", trials=1)
    assert plain.place == plain.folder and plain.inputs_place == plain.inputs_path
    assert main(["export", str(run.folder), "--trial", "0", "--to", str(tmp_path / "m")]) == 2
    assert str(run.weights_path(0)) in capsys.readouterr().err


def test_files_may_move_but_not_into_or_out_of_the_run_folder(tmp_path):
    run = make_run(tmp_path / "run", trials=1, files_at="s3://bucket/runs")
    moved = replace(run.config, files_at="s3://bucket/moved?region=eu-west-1")
    assert run_file.resumed(run, moved, run.driver).place != run.place
    with pytest.raises(ValueError, match="its files are s3://bucket/runs/run-"):
        run_file.resumed(run, replace(run.config, files_at=None), run.driver)


def test_a_config_refuses_what_is_no_place(tmp_path):
    for wrong in ("runs", "s3://a:SECRET@b/c", "", 3, "hdfs://h/p"):
        with pytest.raises(ValueError) as caught:
            SearchConfig(task="digits", space=SPACE, trials=1, files_at=wrong)
        assert "SECRET" not in str(caught.value)
    run = make_run(tmp_path / "run", trials=1)
    data = read_json(run.folder / "run.json")
    # What a stranger's run is called must not lead out of the place.
    write_json(run.folder / "run.json", data | {"name": "../../etc"})
    with pytest.raises(ValueError, match="name must be a plain one"):
        run_file.load(run.folder)


def test_fronts_are_drawn_from_the_run_folder_alone(tmp_path, s3):
    """Results of replicas are copied; where they are kept is not asked again."""
    import numpy as np

    run = make_run(tmp_path / "run", trials=3, refine=2, files_at=url(s3))
    record = run.records()[0]
    kept = run.trials_place / str(record.number)
    save_scores(kept, np.ones(8, dtype=np.float32))
    replica = changed(finished(changed(record, replica=1)), replica=1, quality=0.5)
    save_scores(replica_folder(kept, 1), np.zeros(8, dtype=np.float32))
    write_json(replica_folder(kept, 1) / RESULT, replica.to_dict())
    save_scores(replica_folder(kept, 2), np.zeros(8, dtype=np.float32))
    assert run.trials()[0] == record
    found = Refinement(
        run.records(), run.folder / "trials", run.config.goals, 2, kept=run.trials_place
    )
    # The second has not ended.
    assert found.done == 1 and run.trials()[0].n_evaluations == 2
    write_json(replica_folder(kept, 2) / RESULT, changed(replica, replica=2).to_dict())
    found.ended(changed(replica, replica=2))
    assert found.done == 2
    there = tmp_path / "there"
    for name in ("", "replica-1", "replica-2"):
        for file in ("scores.npy", RESULT):
            source = kept / name / file if name else kept / file
            if source.is_file():
                (there / name).mkdir(parents=True, exist_ok=True)
                (there / name / file).write_bytes(source.read_bytes())
    assert run.trials()[0] == pooled(record, there)


def test_a_store_that_refuses_fails_no_trial_and_says_so(tmp_path):
    session = make_session(tmp_path, trials=2)
    candidate = session.next_candidate()
    with refusing_server("AccessDenied", 403) as server:
        place = place_at(url(server.server_port)) / "run" / "trials"
        with pytest.raises(RemoteError, match="ACCESS_DENIED"):
            evaluate_trial(candidate, place / str(candidate.number), None, None)
        with pytest.raises(RemoteError):
            adopt_results(session, place)
    in_flight = make_session(tmp_path, trials=2, create=False).in_flight()
    assert [trial.candidate for trial in in_flight] == [candidate]


def test_a_new_run_whose_bucket_is_not_there_leaves_nothing_behind(tmp_path, s3, capsys):
    where = url(s3, bucket="nobodys")
    asked = ["search", "quickstart", "--trials", "1", "--quiet", "--storage", where]
    assert main([*asked, "--run", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "NO_SUCH_BUCKET" in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.fixture
def nodes(counted_joules):
    """One node that measures, and one that only trains."""
    from ray.cluster_utils import Cluster

    few = {"num_cpus": 1, "object_store_memory": 80 * 1024 * 1024}
    head = few | {"resources": {ray_cluster.METER_RESOURCE: 1}, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(**few)
        yield cluster.address
    finally:
        cluster.shutdown()


TINY = SearchSpace.from_dict(
    {
        "name": "tiny",
        "d_model": [16],
        "depth": [1, 2],
        "n_heads": [1, 2],
        "n_kv_heads": [1],
        "ffn_ratio": [1, 2],
        "patch_size": [4],
    }
)


@pytest.mark.thorough
@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_a_search_keeps_its_files_in_s3_through_a_kill_and_a_move(
    tmp_path, nodes, s3, counted_joules
):
    first, second, where = tmp_path / "first", tmp_path / "second", url(s3, prefix="moved")
    config = SearchConfig(
        task="digits",
        space=TINY,
        trials=3,
        protocol="quick",
        sampler="random",
        meter=counted_joules,
        training=TrainingConfig(epochs=4, distill=DistillConfig()),
        halving=HalvingConfig(eta=2, min_epochs=2),
        teacher="largest",
        files_at=where,
    )
    searching = Forked(partial(nas.search, config, first, workers=2, address=nodes))

    def ended():
        places = [run / "trials" for run in place_at(where).glob("*")]
        return [path for place in places for path in place.glob("*") if result_in(path)]

    try:
        wait_for(lambda: time.sleep(0.2) or searching.poll() is not None or ended(), for_s=300)
        assert searching.poll() is None, searching.communicate()[1]
    finally:
        searching.kill()
        searching.communicate()
    # Another machine has what identifies the run, and nothing that workers made.
    here = {path.relative_to(first).as_posix() for path in first.rglob("*") if path.is_file()}
    # Counts of pruned candidates are the driver's, and written when it has heard of the trial.
    assert here - {"pruning.json"} == {"run.json", "records.jsonl", "inputs.npy", "writer.lock"}
    shutil.move(first, second)
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in (second / "run.json").read_text()
    before = {path.name: (path / RESULT).read_bytes() for path in ended()}
    assert main(["resume", str(second), "--quiet"]) == 0
    run = run_file.load(second)
    records = {record.number: record for record in run.trials()}
    assert len(records) == 3 and {r.state for r in records.values()} <= {"complete", "stopped"}
    # What had ended when the driver was killed was not done again.
    for number, content in before.items():
        assert (run.trials_place / number / RESULT).read_bytes() == content
        assert records[int(number)].to_dict() == json.loads(content)
    for record in records.values():
        names = {path.name for path in (run.trials_place / str(record.number)).glob("*")}
        # What only an unfinished trial needs is gone.
        kept = {"model.safetensors", RESULT, "scores.npy"}
        if record.state == "complete":
            assert names == kept
        else:
            # The worker's last entry of what it spent may come after the verdict.
            assert names <= {SPENT}
    assert not (second / "teacher").exists() and run.teacher().source == "largest"
    member = run.front().members[0].trial
    exported = nas.export(run, member, tmp_path / "model")
    weights = (exported.folder / "model.safetensors").read_bytes()
    assert weights == run.weights_path(member).read_bytes()
