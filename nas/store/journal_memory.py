"""Finished trials of a replayed journal in a third of the memory.

A replay gives each trial distributions, names of parameters and attributes of its own, all parsed
anew from its lines: 20 kB of a trial that never changes again. Distributions and names are the
same in nearly all trials, so that one of each is kept; attributes, of which ours are a whole
record, are read rarely and kept as compressed JSON.
"""

from __future__ import annotations

import copy
import json
import sys
import zlib
from typing import Any, cast

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

_ATTRS, _PACKED = "_user_attrs", "_packed"


class PackedTrial(FrozenTrial):
    """A ``FrozenTrial`` whose user attributes are parsed each time that they are asked for.

    It is not to be changed; a deep copy is a ``FrozenTrial`` as any other.
    """

    _packed: bytes

    @property
    def _user_attrs(self) -> dict[str, Any]:
        return cast(dict[str, Any], json.loads(zlib.decompress(self._packed)))

    @_user_attrs.setter
    def _user_attrs(self, attrs: dict[str, Any]) -> None:
        self._packed = zlib.compress(json.dumps(attrs, separators=(",", ":")).encode(), 1)

    def __eq__(self, other: object) -> bool:
        """Whether ``other``, packed or not, says the same."""
        if not isinstance(other, FrozenTrial):
            return NotImplemented
        return _said(self) == _said(other)

    __hash__ = FrozenTrial.__hash__

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTrial:
        """A plain trial with everything of its own."""
        plain = FrozenTrial.__new__(FrozenTrial)
        vars(plain).update(copy.deepcopy(_said(self), memo))
        return plain


def _said(trial: FrozenTrial) -> dict[str, Any]:
    said = vars(trial) | {_ATTRS: trial.user_attrs}
    said.pop(_PACKED, None)
    return said


class Packer:
    """Packs finished trials, which share what is the same in them."""

    def __init__(self) -> None:
        """Nothing is shared yet."""
        self._shared: dict[str, dict[str, BaseDistribution]] = {}

    def packed(self, trial: FrozenTrial) -> PackedTrial:
        """``trial``, which says what it said."""
        # By their text: of values, 1 and True are equal.
        shared = self._shared.setdefault(repr(trial.distributions), trial.distributions)
        packed = PackedTrial.__new__(PackedTrial)
        # One by one: such objects share the table of their names.
        for name, value in vars(trial).items():
            setattr(packed, name, value)
        packed.distributions = shared
        packed.params = {name: _one(trial.params[name]) for name in shared}
        return packed


def _one(value: Any) -> Any:
    return sys.intern(value) if isinstance(value, str) else value
