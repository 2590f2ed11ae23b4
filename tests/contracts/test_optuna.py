"""What the study needs of Optuna, each in a test that names what has changed."""

import ast
import copy
import inspect
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage, get_storage
from optuna.trial import TrialState, create_trial
from sources import sources, text_of, tree_of

from experiments.benchmarks.sampling import optuna_internals

ROOT = Path(__file__).parents[2]
ADAPTER = "experiments/benchmarks/sampling/optuna_internals.py"
# Attributes of Optuna's objects, and of no others here.
PRIVATE = {"_trial_id", "_study_id", "_replay_result", "_cached_frozen_trial", "_CachedStorage"}


def private_names(tree):
    """Private names of Optuna in one module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "optuna":
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            yield from (name for name in names if name.startswith("_"))
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            of_optuna = ast.unparse(node).startswith("optuna.")
            of_study = ast.unparse(node.value).split(".")[-1] in ("study", "_study", "trial")
            is_dunder = node.attr.startswith("__")
            if not is_dunder and (of_optuna or of_study or node.attr in PRIVATE):
                yield node.attr


def test_no_file_but_the_adapter_uses_a_private_name_of_optuna():
    uses = {
        (str(path.relative_to(ROOT)), name)
        for path in sources()
        if "optuna" in text_of(path) and str(path.relative_to(ROOT)) != ADAPTER
        for name in private_names(tree_of(text_of(path)))
    }
    assert not uses


@pytest.mark.parametrize(
    "text",
    [
        "from optuna._hypervolume import x",
        "from optuna.storages import _CachedStorage",
        "study._storage",
        "self._study._study_id",
        "frozen._trial_id",
        "optuna.study._frozen",
    ],
)
def test_the_search_for_private_names_sees(text):
    assert list(private_names(ast.parse(text)))


@pytest.mark.parametrize(
    "name",
    [
        "get_study_id_from_name",
        "get_trial_id_from_study_id_trial_number",
        "get_trial",
        "set_trial_state_values",
    ],
)
@pytest.mark.parametrize("storage", [BaseStorage, InMemoryStorage, RDBStorage])
def test_a_storage_has(storage, name):
    assert callable(getattr(storage, name, None)), f"optuna {optuna.__version__}: {storage}.{name}"


def test_all_abstract_operations_of_a_storage_are_public():
    """``nas.store.database`` passes on those that are."""
    abstract = BaseStorage.__abstractmethods__
    assert abstract and not {name for name in abstract if name.startswith("_")}


def test_a_wrapped_database_is_a_storage(tmp_path):
    wrapped = get_storage(RDBStorage(f"sqlite:///{tmp_path}/s.db"))
    assert isinstance(wrapped, BaseStorage) and get_storage(wrapped) is wrapped


class Shared(CategoricalDistribution):
    def __deepcopy__(self, memo):
        return self


def test_a_study_in_memory_shares_distributions_and_takes_any_attribute():
    storage = InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="s", directions=["minimize"] * 2)
    one, attribute = Shared((1, 2)), object()
    study.add_trial(create_trial(values=[1.0, 2.0], params={"a": 1}, distributions={"a": one}))
    trial = study.ask({"a": one})
    trial.set_user_attr("x", attribute)
    trial.set_constraint("limit", 0.5)
    assert study.tell(trial.number, [3.0, 4.0], TrialState.COMPLETE).values == [3.0, 4.0]
    first, second = study.get_trials(deepcopy=False)
    assert first.distributions["a"] is second.distributions["a"] is one
    assert second.user_attrs["x"] is attribute and second.constraints == {"limit": 0.5}
    assert copy.copy(second).values == second.values


def test_a_trial_is_opened_by_its_number_and_a_queue_goes_in_order():
    storage = InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="s", directions=["minimize"] * 2)
    for value in (2, 1):
        study.enqueue_trial({"a": value}, user_attrs={"of": value})
    study_id = storage.get_study_id_from_name("s")
    trial = study.ask({"a": CategoricalDistribution((1, 2))})
    assert trial.number == 0 and trial.params == {"a": 2} and trial.user_attrs == {"of": 2}
    again = optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, 0))
    again.set_user_attr("more", 1)
    assert storage.get_trial(0).user_attrs == {"of": 2, "more": 1}
    assert [t.number for t in study.get_trials(states=(TrialState.WAITING,))] == [1]


def test_a_trial_is_created_with_its_constraints_and_what_samplers_stored():
    assert {"constraints", "system_attrs", "user_attrs"} <= set(
        inspect.signature(create_trial).parameters
    )
    trial = create_trial(values=[1.0], system_attrs={"generation": 3}, constraints={"limit": 1.0})
    assert trial.constraints == {"limit": 1.0} and trial.system_attrs["generation"] == 3


def test_the_adapter_returns_a_hypervolume_and_refuses_in_one_line(monkeypatch):
    losses = np.array([[0.0, 0.5], [0.5, 0.0]])
    assert optuna_internals.hypervolume(losses, np.array([1.0, 1.0])) == pytest.approx(0.75)
    monkeypatch.delattr("optuna._hypervolume.compute_hypervolume")
    with pytest.raises(RuntimeError, match=r"optuna\._hypervolume\.compute_hypervolume"):
        optuna_internals.hypervolume(losses, np.array([1.0, 1.0]))
