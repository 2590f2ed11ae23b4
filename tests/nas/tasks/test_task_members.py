"""Members of tasks: defaults, what the registry refuses, and how little a new kind needs."""

import numpy as np
import pytest
from text_fakes import sentences, write_table

from nas.tasks.base import Split, Task
from nas.tasks.base.artifact_files import artifact_files_of
from nas.tasks.base.metric import ACCURACY
from nas.tasks.base.task_file import read_task_file
from nas.tasks.registry import TASKS, get_task
from nas.tasks.sequences.pair_task import PairTask
from nas.tasks.sequences.translation_score import CorpusScore
from nas.training.objective import Classification, objective_of
from search_spaces.workload import Workload


class Plain(Task):
    name = "plain"

    def workload(self, batch_size):
        return Workload(self.name, "image_classification", (1, 2, 2), 2, batch_size)

    def split(self, name):
        return Split(np.zeros((4, 1, 2, 2), np.float32), np.arange(4) % 2)


def test_a_task_has_defaults_for_all_but_its_data():
    task = Plain()
    assert task.metric is ACCURACY and task.kind is None and task.about() == {}
    assert not [*task.notes(), *task.warnings()] and not artifact_files_of(task)
    assert isinstance(objective_of(task, task.workload(4)), Classification)


class NoTask:
    name = "other"


class OddMetric(Plain):
    metric = "bleu"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (NoTask, "odd must make a task that derives from nas.tasks.base.Task, got NoTask"),
        (OddMetric, "metric of task plain must be a Metric, got 'bleu'"),
    ],
)
def test_tasks_of_plugins_are_checked(monkeypatch, make, message):
    monkeypatch.setitem(TASKS, "odd", make)
    with pytest.raises(ValueError, match=message):
        get_task("odd")


@pytest.mark.parametrize("name", ["../x.json", "a\\b", ".hidden"])
def test_files_for_artifacts_have_plain_names(name):
    task = Plain()
    task.artifact_files = lambda: {name: ""}
    with pytest.raises(ValueError, match="must have a plain name, got"):
        artifact_files_of(task)


class Summaries(PairTask):
    kind = "summaries"
    workload_kind = "translation"
    metrics = ("chrf",)

    def score(self):
        return CorpusScore(self.metric.key)


def test_a_kind_of_pairs_needs_a_name_and_metrics(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_table(tmp_path / "all.csv", sentences(200), ("article", "highlights"))
    (tmp_path / "t.yaml").write_text(
        "{name: news, kind: summaries, data: all.csv, source: article, target: highlights, "
        "max_vocabulary: 290}"
    )
    task = Summaries.from_file(read_task_file(tmp_path / "t.yaml", default_kind=""))
    assert task.metric.key == "chrf" and task.workload(2).target_length == 40
    assert sum(task.about()["samples"].values()) == 200
    assert len(task.objective._references) == 200
    with pytest.raises(ValueError, match="metric must be chrf, got 'bleu'"):
        Summaries("news", task.sources, type(task.options)(metric="bleu"))
