"""Tasks by name, and kinds of task files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nas.core.names import check_name
from nas.core.nearest import did_you_mean
from nas.tasks.audio.speech import Speech
from nas.tasks.base import Task
from nas.tasks.base.metric import Metric
from nas.tasks.base.task_file import TaskFile, read_task_file
from nas.tasks.embedded import Digits
from nas.tasks.embeddings.task import Embeddings
from nas.tasks.hf import hf_task
from nas.tasks.sequences.language_modelling import LanguageModelling
from nas.tasks.sequences.question_answering import QuestionAnswering
from nas.tasks.sequences.summarisation import SummarisationTask
from nas.tasks.sequences.translation import TranslationTask
from nas.tasks.text.classification import TextClassification
from nas.tasks.transcription.task import Transcription
from nas.tasks.vision.detection import Detection
from nas.tasks.vision.images import ImageClassification
from nas.tasks.vision.segmentation import Segmentation
from search_spaces.plugins import plugin_entries

TASKS: dict[str, Callable[[], Task]] = {"digits": Digits}

# Kinds of task files. A maker raises ValueError for keys that are not allowed.
FILE_TASKS: dict[str, Callable[[TaskFile], Task]] = {
    "detection": Detection.from_file,
    "embeddings": Embeddings.from_file,
    "hf": hf_task,
    "images": ImageClassification.from_file,
    "language_modelling": LanguageModelling.from_file,
    "question_answering": QuestionAnswering.from_file,
    "segmentation": Segmentation.from_file,
    "speech": Speech.from_file,
    "summarisation": SummarisationTask.from_file,
    "text_classification": TextClassification.from_file,
    "transcription": Transcription.from_file,
    "translation": TranslationTask.from_file,
}


def get_task(name: str) -> Task:
    """Return the task called ``name``, or that of the YAML file at that path.

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
    return _checked(known[name](), name, "a task's name")


def is_task_file(name: str) -> bool:
    """Whether ``name`` is the path of a task file."""
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
        return _checked(known[file.kind](file), file.kind, "name")
    except ValueError as error:
        raise ValueError(f"task file {path}: {error}") from None


def _checked(task: object, source: str, name_key: str) -> Task:
    """Check a task, which a plug-in may have made."""
    if not isinstance(task, Task):
        raise ValueError(
            f"{source} must make a task that derives from nas.tasks.base.Task, got "
            f"{type(task).__name__}"
        )
    check_name(name_key, task.name)
    if not isinstance(task.metric, Metric):
        raise ValueError(f"metric of task {task.name} must be a Metric, got {task.metric!r}")
    return task
