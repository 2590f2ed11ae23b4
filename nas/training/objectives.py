"""The objective of each task."""

from __future__ import annotations

from nas.tasks.base import Task
from nas.training.dense import SegmentationObjective
from nas.training.objective import Classification, LanguageModelling, Objective
from search_spaces.workload import Kind, Workload

# Tasks whose metric reads more than arrays, such as answers' texts, have their own objective.
OBJECTIVES: dict[Kind, Objective] = {
    "image_classification": Classification(),
    "text_classification": Classification(),
    "language_modelling": LanguageModelling(),
    "image_segmentation": SegmentationObjective(),
}


def objective_of(task: Task, workload: Workload) -> Objective:
    """Return the task's own ``objective``, or that of its kind.

    Raises:
        ValueError: there is neither.
    """
    own: Objective | None = task.objective
    if own is not None:
        return own
    if workload.kind not in OBJECTIVES:
        raise ValueError(
            f"objective of task {task.name} must be its own: {workload.kind} has none"
        )
    return OBJECTIVES[workload.kind]
