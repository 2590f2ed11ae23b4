"""Tasks by name, and by the kind that a user's task file says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nas.core.names import check_name
from nas.core.nearest import did_you_mean
from nas.tasks.audio.speech import speech_task
from nas.tasks.base import Task
from nas.tasks.base.task_file import TaskFile, read_task_file
from nas.tasks.embedded import Digits
from nas.tasks.hf import hf_task
from nas.tasks.sequences.language_modelling import LanguageModelling
from nas.tasks.sequences.question_answering import QuestionAnswering
from nas.tasks.sequences.translation import TranslationTask
from nas.tasks.text.classification import TextClassification
from nas.tasks.vision.images import image_task
from nas.tasks.vision.segmentation import Segmentation
from search_spaces.plugins import plugin_entries

TASKS: dict[str, Callable[[], Task]] = {"digits": Digits}

# A kind of task file -> what makes the task of it; raises ValueError for keys that do not fit.
FILE_TASKS: dict[str, Callable[[TaskFile], Task]] = {
    "hf": hf_task,
    "images": image_task,
    "language_modelling": LanguageModelling.from_file,
    "question_answering": QuestionAnswering.from_file,
    "segmentation": Segmentation.from_file,
    "speech": speech_task,
    "text_classification": TextClassification.from_file,
    "translation": TranslationTask.from_file,
}


def get_task(name: str) -> Task:
    """The task called ``name``, or that of the YAML file at that path.

    Plug-ins and installed packages may add to both (``search_spaces.plugins``).

    Raises:
        ValueError: there is no such task or file, or the file is not a task.
    """
    if is_task_file(name):
        return _file_task(Path(name))
    known = TASKS if name in TASKS else plugin_entries("TASKS") | TASKS
    if name not in known:
        allowed = f"{', '.join(sorted(known))} or a .yaml file"
        raise ValueError(f"task must be one of {allowed}, got {name!r}{did_you_mean(name, known)}")
    task = known[name]()
    check_name("a task's name", task.name)
    return task


def is_task_file(name: str) -> bool:
    """Whether ``name`` is a path rather than the name of a task that comes with the project."""
    return Path(name).suffix in (".yaml", ".yml")


def _file_task(path: Path) -> Task:
    try:
        file = read_task_file(path, default_kind="text_classification")
        known = (
            FILE_TASKS if file.kind in FILE_TASKS else plugin_entries("TASK_KINDS") | FILE_TASKS
        )
        if file.kind not in known:
            hint = did_you_mean(file.kind, known)
            allowed = ", ".join(sorted(known))
            raise ValueError(f"kind must be one of {allowed}, got {file.kind!r}{hint}")
        task = known[file.kind](file)
        check_name("name", task.name)
        return task
    except ValueError as error:
        raise ValueError(f"task file {path}: {error}") from None
