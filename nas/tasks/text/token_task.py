"""Base class of tasks over tokenized texts."""

from __future__ import annotations

from pathlib import Path

from nas.tasks.base.artifact_files import TOKENIZER
from nas.tasks.base.file_task import FileTask, Row


class TokenTask(FileTask[Row]):
    """A ``FileTask`` that writes a ``tokenizer.json``; ``options.tokenizer`` may be the user's."""

    def option_files(self) -> list[Path]:
        """See ``FileTask.option_files``."""
        tokenizer: Path | None = self.options.tokenizer
        return [] if tokenizer is None else [tokenizer]

    def artifact_files(self) -> dict[str, str]:
        """The tokenizer."""
        return {TOKENIZER: self.cache.text(TOKENIZER)}
