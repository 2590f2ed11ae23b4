"""Which objective a task has."""

from __future__ import annotations

from nas.tasks.base import Task
from nas.training.dense import SegmentationObjective
from nas.training.objective import Classification, LanguageModelling, Objective
from search_spaces.workload import Kind, Workload

# What is judged by more than its arrays, as answers are by their texts, comes with its task.
OBJECTIVES: dict[Kind, Objective] = {
    "image_classification": Classification(),
    "text_classification": Classification(),
    "language_modelling": LanguageModelling(),
    "image_segmentation": SegmentationObjective(),
}


def objective_of(task: Task, workload: Workload) -> Objective:
    """What ``task`` trains for: its own ``objective`` where it has one, else that of its kind.

    Raises:
        ValueError: it has none, and there is none of its kind.
    """
    own: Objective | None = getattr(task, "objective", None)
    if own is not None:
        return own
    if workload.kind not in OBJECTIVES:
        raise ValueError(
            f"objective of task {task.name} must be its own: {workload.kind} has none"
        )
    return OBJECTIVES[workload.kind]
