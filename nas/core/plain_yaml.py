"""Read untrusted YAML: only plain values of bounded size.

Tags that construct objects, duplicate keys and aliases are refused. A few nested aliases could
expand to more values than fit in memory.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MOST_DIGITS = 300


def read_yaml(path: Path, *, max_bytes: int) -> Any:
    """Return the value in the file at ``path``.

    Raises:
        ValueError: the file is unreadable, too long, not UTF-8 or not such YAML; the message is
            one line, without the file's name.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("must be a file")
        if path.stat().st_size > max_bytes:
            raise ValueError(f"must be at most {max_bytes} bytes")
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except OSError as error:
        raise ValueError(f"must be readable: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("must be UTF-8 text") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"must be YAML: {_problem(error)}") from None
    except (ValueError, ArithmeticError, TypeError, LookupError, AttributeError) as error:
        # Raised for an invalid date, an empty text tagged as a number, or a list as a key.
        lines = str(error).splitlines() or ["it cannot be read"]
        raise ValueError(lines[0]) from None


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "an alias is not allowed, write the value again", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if node.tag in _NUMBERS and len(value) > _MOST_DIGITS:
            # Numbers of many digits in base 60 or 16 take minutes to read or print.
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"a number must have at most {_MOST_DIGITS} digits, got {len(value):,}",
                node.start_mark,
            )
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} occurs twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it cannot be read"
    return f"{problem}, line {mark.line + 1}" if mark is not None else str(problem)
