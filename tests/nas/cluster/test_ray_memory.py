"""Ray Tune forgets what ended trials reported, and nothing of those that still run."""

import pickle

from ray.tune.experiment import Trial
from ray.tune.experiment.trial import _Location

from nas.cluster.tune_memory import ForgetEnded


def reported(trial_id):
    trial = Trial("none", stub=True, trial_id=trial_id, config={"candidate": "x"})
    trial.set_location(_Location())
    for step in range(3):
        # Numbers have statistics each, and what a trial reports has dozens.
        trial.update_last_result({f"figure_{n}": float(n) for n in range(50)} | {"step": step})
    trial.get_json_state()
    return trial


def size(trial):
    return len(pickle.dumps(trial.run_metadata.__dict__)) + sum(map(len, trial.get_json_state()))


def test_what_ended_is_forgotten_after_its_step_and_what_runs_is_not():
    ended, runs = (reported(name) for name in "er")
    before = size(ended)
    callback = ForgetEnded()
    callback.on_trial_complete(0, [], ended)
    # Within the step Tune still asks for it.
    assert ended.last_result["figure_7"] == 7.0
    callback.on_step_end(0, [ended, runs])
    assert "figure_7" not in ended.last_result and size(ended) < before / 4
    assert ended.run_metadata.checkpoint_manager is not None
    assert len(ended.get_json_state()[0]) < 100 < len(runs.get_json_state()[0])
    # Strings that are one object are pickled once: sizes are alike, not equal.
    assert runs.last_result["figure_7"] == 7.0 and size(runs) > before / 2
    assert ended.config == {"candidate": "x"}


def test_a_step_forgets_only_what_ended_since_the_last():
    trial, callback = reported("e"), ForgetEnded()
    callback.on_trial_complete(0, [], trial)
    callback.on_step_end(0, [trial])
    trial.update_last_result({"figure_7": 8.0})
    callback.on_step_end(1, [trial])
    assert trial.last_result["figure_7"] == 8.0


def test_trials_that_ended_share_what_says_which_resources_they_had():
    trials, callback = [reported(name) for name in "ab"], ForgetEnded()
    for step, trial in enumerate(trials):
        trial.update_resources({"cpu": 1})
        callback.on_trial_complete(step, [], trial)
        callback.on_step_end(step, trials)
    first, second = trials
    assert first.placement_group_factory is second.placement_group_factory
    assert first.placement_group_factory.required_resources == {"CPU": 1}


def test_tune_may_pickle_it():
    callback = ForgetEnded()
    callback.on_trial_complete(0, [], lambda: None)
    assert pickle.loads(pickle.dumps(callback)).__dict__ == {}
