"""A canonical form of equivalent candidates, from a function in a user's Python file.

The file is imported, so name one that you trust. The function maps a configuration (a dictionary
of parameter names and values) to the one form of all that are equal to it; a parameter that the
form leaves out has no effect.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from experiments.benchmarks.sampling.problems.problem import Array
from experiments.benchmarks.sampling.problems.space import Config, Parameter

Canonical = Callable[[Config], Config]


def load_canonical(path: Path, name: str) -> Canonical:
    """Return function ``name`` of the Python file ``path``.

    Raises:
        ValueError: the file cannot be imported, or has no such function.
    """
    spec = importlib.util.spec_from_file_location("canonical_form", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"--canonical must be FILE.py:FUNCTION, and {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001 - whatever the file raises is its user's to repair
        raise ValueError(f"--canonical: {path} cannot be imported: {error!r}") from None
    function: Canonical | None = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"--canonical: {path} must have a function {name!r}")
    return function


class CanonicalForm:
    """The function applied to configurations, checked against the parameters."""

    def __init__(self, function: Canonical, parameters: Sequence[Parameter]) -> None:
        """Apply ``function`` to configurations of ``parameters``, which are all choices."""
        self._function = function
        self._values = {p.name: p.values for p in parameters}
        self._rows: dict[bytes, Array] = {}

    def __call__(self, config: Config) -> Config:
        """Return the form of ``config``.

        Raises:
            ValueError: the function returns no dictionary, or what the table does not have.
        """
        form = self._function(dict(config))
        if not isinstance(form, dict):
            raise ValueError(f"--canonical must return a dictionary, got {form!r} for {config}")
        for name, value in form.items():
            if name not in self._values or value not in self._values[name]:
                raise ValueError(
                    f"--canonical must return parameters of the table with values that are in "
                    f"it, got {name}={value!r} for {config}"
                )
        return form

    def filled(self, config: Config) -> Config:
        """Return the form with the first value of each parameter that it leaves out."""
        form = self(config)
        return {name: form.get(name, values[0]) for name, values in self._values.items()}

    def rows(self, rows_NP: Array, names: Sequence[str]) -> Array:
        """Return the forms of rows of choices' positions, NaN for what is left out."""
        forms = [self._row(row, names) for row in rows_NP]
        return np.array(forms).reshape(rows_NP.shape)

    def _row(self, row_P: Array, names: Sequence[str]) -> Array:
        key = row_P.tobytes()
        if key not in self._rows:
            values = [self._values[name] for name in names]
            config = {n: v[int(at)] for n, v, at in zip(names, values, row_P, strict=True)}
            form = self(config)
            self._rows[key] = np.array(
                [
                    v.index(form[n]) if n in form else np.nan
                    for n, v in zip(names, values, strict=True)
                ]
            )
        return self._rows[key]
