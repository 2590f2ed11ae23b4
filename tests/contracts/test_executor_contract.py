"""Every executor evaluates candidates, reports their ends, and asks for verdicts at rungs."""

import errno
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import executor_fakes
import pytest
from fault_fakes import Failing, meet_full_disk, notes, wait_for

sys.path.insert(0, str(Path(__file__).parents[1] / "nas"))

from search_fakes import WORKLOAD, changed, finished, make_session, reading

from nas.cluster import waits as ray_waits
from nas.core import interrupts
from nas.core.estimate import Score
from nas.core.files import write_json
from nas.core.plain import to_plain
from nas.core.retry import AwayError, patience
from nas.core.time_limit import check_time
from nas.evaluation.executor import Ended, Stopped
from nas.records.candidate import Measurement, Outcome, Training
from nas.records.config import GateConfig
from nas.records.replicas import result_in
from nas.records.rungs import HalvingConfig, Progress, RungPoint
from nas.records.spent import Spent
from nas.searching.early_stopping import Stopper
from nas.searching.loop import search
from nas.store.driver import Driver
from search_spaces.cost.counting import count

TESTS = Path(__file__).parents[1]
GATE = GateConfig(startup_trials=99)


@dataclass(frozen=True)
class Faked:
    """Two rungs and a formula; ``what`` says what else befalls which trial."""

    what: dict[int, str] = field(default_factory=dict)

    def evaluate(self, candidate, folder, measure, tell=None):
        with (folder / "attempts").open("a") as log:
            log.write(f"{'judged' if tell else 'unjudged'}\n")
        what = self.what.get(candidate.number)
        if what == "raises":
            raise ValueError("no such layer\nmore of it")
        if what == "runs out of memory":
            raise MemoryError
        if what == "meets a full disk":
            raise OSError(errno.ENOSPC, "No space left on device", str(folder / "weights"))
        while what == "hangs" or (
            what == "waits at first" and notes(folder / "attempts")[1:] == []
        ):
            check_time()
            time.sleep(0.02)
        curve = ()
        for epoch in (2, 4):
            curve += (RungPoint(epoch, 0.1 * epoch, 0.01),)
            write_json(folder / "progress.json", to_plain(Progress(curve, 6)))
            if tell is not None:
                tell(Progress(curve, 6))
        return changed(finished(candidate), curve=curve, planned_epochs=6).outcome


@pytest.fixture(scope="module")
def ray_is_up():
    from nas.cluster.connect import cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))
        # Workers have the environment that Ray was started in.
        patch.setenv("JOULENAS_PATIENCE_S", "2")
        with cluster(None, 2, "cpu"):
            yield


@pytest.fixture(params=["in_process", pytest.param("on_ray", marks=pytest.mark.e2e)])
def make(request):
    """Opens an executor of 2 slots, or of as many as it has."""
    is_on_ray = request.param == "on_ray"
    if is_on_ray:
        request.getfixturevalue("ray_is_up")
    register_this_module()

    def open_executor(evaluator, folder, *, trial_timeout_s=None):
        driver = Driver(2 if is_on_ray else 0, trial_timeout_s=trial_timeout_s)
        return getattr(executor_fakes, request.param)(evaluator, folder, driver=driver)

    return open_executor


def register_this_module():
    """Workers cannot import it."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])


def candidates_of(folder, n):
    session = make_session(folder, trials=n, sampler="random", gate=GATE)
    return [session.next_candidate() for _ in range(n)]


def results(executor, candidates, judge=lambda *_: True):
    """What ``wait`` returned of each candidate, as many at a time as there are slots."""
    found, waiting, n_running = {}, list(candidates), 0
    while waiting or n_running:
        while waiting and n_running < executor.slots:
            executor.submit(waiting.pop(0))
            n_running += 1
        event = executor.wait(judge)
        of = event.candidate
        assert isinstance(event, Ended | Stopped) and of.number not in found
        found[of.number] = event
        n_running -= 1
    return found


def test_each_candidate_ends_in_its_own_way(make, tmp_path):
    folder, asked, threads = tmp_path / "trials", [], set()
    evaluator = Faked({1: "raises", 2: "runs out of memory", 3: "hangs"})

    def judge(candidate, progress):
        threads.add(threading.current_thread())
        asked.append((candidate.number, progress.curve[-1].epoch))
        return candidate.number != 4

    candidates = candidates_of(tmp_path, 6)
    candidates[5] = changed(candidates[5], replica=1)
    with make(evaluator, folder, trial_timeout_s=2.0) as executor:
        found = results(executor, candidates, judge)
    assert found[0].outcome == result_in(folder / "0").outcome
    assert found[0].outcome.state == "complete" and len(found[0].outcome.training.curve) == 2
    reasons = {n: found[n].outcome.reason for n in (1, 2, 3)}
    assert reasons == {
        1: "ValueError: no such layer",
        2: "out of memory",
        3: "it took longer than 2 s",
    }
    for number in (1, 2, 3):
        assert result_in(folder / str(number)).outcome == found[number].outcome
    # A verdict is asked for where the loop is, and what it stops has no result.
    assert isinstance(found[4], Stopped) and found[4].candidate == candidates[4]
    assert result_in(folder / "4") is None
    assert sorted(asked) == [(0, 2), (0, 4), (4, 2)]
    assert threads == {threading.current_thread()}
    # A replica is a whole evaluation beside its trial.
    assert found[5].outcome.state == "complete"
    assert result_in(folder / "5" / "replica-1").outcome == found[5].outcome
    assert notes(folder / "5" / "replica-1" / "attempts") == ["unjudged"]
    # What only an unfinished trial needs is gone.
    assert [p.parent.name for p in folder.rglob("progress.json")] in ([], ["4"])


def test_storage_that_stays_away_ends_the_search_and_no_trial(make, tmp_path, monkeypatch):
    monkeypatch.setenv("JOULENAS_PATIENCE_S", "0.2")
    folder = tmp_path / "trials"
    session = make_session(tmp_path, trials=3, sampler="random", gate=GATE)
    with (
        patience(wait_s=0.2),
        make(Faked({1: "meets a full disk"}), folder) as executor,
        pytest.raises(AwayError, match="No space left on device"),
    ):
        search(session, executor, folder)
    assert session.record(1).state == "running" and result_in(folder / "1") is None


@contextmanager
def signalled_when(seen):
    """Send this process Ctrl-C once ``seen()`` is true."""

    def send():
        wait_for(seen)
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    with interrupts.handled():
        sender.start()
        yield
        sender.join()


def test_a_search_goes_on_where_ctrl_c_ended_it(make, tmp_path):
    folder = tmp_path / "trials"
    session = make_session(tmp_path, trials=5, sampler="random", gate=GATE)
    evaluator = Faked({2: "waits at first"})
    with (
        signalled_when(lambda: notes(folder / "2" / "attempts")),
        make(evaluator, folder) as executor,
    ):
        assert search(session, executor, folder) is False
    assert session.record(0).state == session.record(1).state == "complete"
    assert session.record(2).state == "running"
    again = make_session(tmp_path, trials=5, sampler="random", gate=GATE, create=False)
    assert [r.number for r in again.in_flight()][:1] == [2]
    with make(evaluator, folder) as executor:
        assert search(again, executor, folder) is True
    assert [r.state for r in again.records()] == ["complete"] * 5
    assert notes(folder / "0" / "attempts") == ["judged"]
    assert len(notes(folder / "2" / "attempts")) == 2


def test_an_executor_that_is_closed_while_it_evaluates_leaves_the_trial_unfinished(make, tmp_path):
    folder = tmp_path / "trials"
    (candidate,) = candidates_of(tmp_path, 1)
    with make(Faked({0: "waits at first"}), folder) as executor:
        executor.submit(candidate)
    assert result_in(folder / "0") is None
    with make(Faked(), folder) as executor:
        assert results(executor, [candidate])[0].outcome.state == "complete"


@dataclass(frozen=True)
class Growing:
    """Three rungs in no time; quality and joules grow with parameters, every third is bad."""

    def evaluate(self, candidate, folder, measure, tell=None):
        params = count(candidate.architecture, WORKLOAD).params
        quality = 0.2 if candidate.number % 3 == 2 else 1 - 6 / params**0.6
        curve = ()
        (folder / "progress.json").write_text("{}")
        for epoch in (2, 4, 8):
            curve += (RungPoint(epoch, quality, 0.001),)
            tell(Progress(curve, 10, "random", Spent(1.0, 1.0)))
        energy_j = params * 1e-9
        return Outcome(
            "complete",
            quality=Score(quality, 0.001),
            measurement=Measurement(
                replace(
                    reading(1.0), energy_j=energy_j, low_j=0.9 * energy_j, high_j=1.1 * energy_j
                )
            ),
            training=Training(curve, 10),
        )


def test_a_search_stops_trials_at_their_rungs(make, tmp_path):
    session, folder = make_session(tmp_path, sampler="random", trials=9), tmp_path / "trials"
    config = HalvingConfig(eta=2, min_epochs=2, startup_trials=2)
    with make(Growing(), folder) as executor:
        search(session, executor, folder, Stopper(config, session, session._gate.surrogates))
    records = session.records()
    assert not [r.reason for r in records if r.state == "failed"]
    assert {r.state for r in records} == {"complete", "stopped"} and len(records) == 9
    stopped = [r for r in records if r.state == "stopped"]
    assert {r.epochs for r in stopped} <= {2, 4, 8} and {r.number for r in stopped} >= {5}
    assert all(r.train_energy_j == 1.0 for r in stopped)
    assert not list(folder.rglob("progress.json"))
    assert not session.in_flight()


class Waits:
    def __init__(self):
        self.reasons = []

    def on_wait(self, reason):
        self.reasons.append(reason)


@pytest.mark.e2e
def test_a_search_whose_disk_stays_full_says_so_ends_and_goes_on(ray_is_up, tmp_path, monkeypatch):
    """On true Ray: what Tune makes of errors, and what workers say, is Ray's."""
    heard, folder = Waits(), tmp_path / "trials"

    def run(session, faults):
        executor_fakes.run_trials(session, Failing(faults), folder)

    with patience(wait_s=2.0), ray_waits.hear_waits(heard):
        session = make_session(tmp_path, trials=6, sampler="random", gate=GATE)
        with pytest.raises(AwayError, match=r"trial 2: .*No space left on device"):
            run(session, {2: meet_full_disk})
        assert any(
            "trial 2 waits for storage: No space left on device" in reason
            and "state.json" in reason
            and "trying again for 2 s" in reason
            for reason in heard.reasons
        )
        again = make_session(tmp_path, trials=6, sampler="random", gate=GATE, create=False)
        assert "failed" not in [r.state for r in again.records()]
        assert again.record(2).state == "running" and again.record(0).state == "complete"
        # The driver's own: Tune would make a trial's failure of it, or text.
        full = OSError(errno.ENOSPC, "No space left on device")
        with monkeypatch.context() as patch:
            patch.setattr(again, "finish", lambda _: (_ for _ in ()).throw(full))
            with pytest.raises(OSError, match="No space left"):
                run(again, {})
        last = make_session(tmp_path, trials=6, sampler="random", gate=GATE, create=False)
        run(last, {})
    assert [r.state for r in last.records()] == ["complete"] * 6
    assert len(notes(folder / "0" / "attempts")) == 1
