"""Candidates with true qualities and joules, and noisy labels of them, to test the gate on.

Joules have a session effect, which all labels of a session share, and a smaller effect of each
label. Qualities have the error of a validation set. What is true has neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from experiments.benchmarks.tables.gpt_readings import Model, Readings
from nas.core.estimate import Score
from nas.records.candidate import Candidate, Measurement, Outcome
from nas.records.trial import Trial
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.workload import Workload

Array = NDArray[np.float64]

# The record's quality lies in [0, 1]: perplexity over this, from above, is its error.
_PERPLEXITY_SCALE = 1000.0
# Error of the mean loss of 62,500 tokens whose losses deviate by 2.5 nats.
QUALITY_SD = 0.01
# Deviation within a session, as a share of that between sessions.
_WITHIN = 0.25
# Labels of a session: what is measured before a device's state changes.
SESSION_LABELS = 20
# Least relative deviation that a reading states.
_LEAST_SD = 0.01


@dataclass(frozen=True)
class Members:
    """``N`` members of a space with their true perplexities and joules."""

    architectures: tuple[Architecture, ...]
    perplexity: Array
    energy_j: Array

    @property
    def losses(self) -> Array:
        """Logarithms of error rate and joules, ``(N, 2)``."""
        return np.log(np.column_stack([self.perplexity / _PERPLEXITY_SCALE, self.energy_j]))

    def rows(self, selection: Any) -> Members:
        """Return the members selected by positions."""
        chosen = np.arange(len(self.architectures))[selection]
        return Members(
            tuple(self.architectures[i] for i in chosen),
            self.perplexity[chosen],
            self.energy_j[chosen],
        )


class Problem(Protocol):
    """A space of members with true values; ``draw`` returns distinct random ones."""

    name: str
    workload: Workload

    def draw(self, n: int, rng: np.random.Generator) -> Members:
        """Return ``n`` members."""


class HwGpt:
    """The surrogates of HW-GPT-Bench for one device, in its space of scale s."""

    workload = Workload("hwgpt", "language_modelling", (1024,), 50_257, 1, vocab_size=50_257)

    def __init__(self, module: Any, device: str) -> None:
        """Read the surrogates by ``module``, the benchmark's reader."""
        self.name = f"HW-GPT-Bench {device}"
        self._module, self._device, self._oracle = module, device, module.Oracle("s")
        if device not in self._oracle.devices():
            known = ", ".join(self._oracle.devices())
            raise ValueError(f"device must be one of {known}, got {device!r}")

    def draw(self, n: int, rng: np.random.Generator) -> Members:
        """Return ``n`` uniform samples of the space."""
        models = [self._module.sample(rng, "s") for _ in range(n)]
        return Members(
            tuple(to_architecture(model) for model in models),
            np.asarray(self._oracle.perplexity(models), dtype=float),
            np.asarray(self._oracle.hw_metric(models, device=self._device), dtype=float),
        )


class Nvml:
    """Networks whose joules were read by NVML; perplexities are HW-GPT-Bench's surrogate's."""

    workload = Workload("nvml-gpt", "language_modelling", (1024,), 50_257, 8, vocab_size=50_257)

    def __init__(self, module: Any, readings: Readings) -> None:
        """Take joules as read, which is what is true here."""
        self.name = f"NVML {readings.gpu} {readings.scale}"
        self._members = Members(
            tuple(to_architecture(model) for model in readings.models),
            perplexities(module, readings.models, readings.scale),
            readings.energy_j,
        )

    def draw(self, n: int, rng: np.random.Generator) -> Members:
        """Return ``n`` random rows of the table, or all."""
        order = rng.permutation(len(self._members.architectures))
        return self._members.rows(order[:n])


def perplexities(module: Any, models: Sequence[Model], scale: str) -> Array:
    """Return perplexities by the surrogate of a scale; ``Oracle`` needs its energies as well."""
    weights = np.load(Path(module.__file__).with_name("perplexity_mlp.npz"))
    values = module.ppl_features(models, scale)
    for layer in range(1, 6):
        values = values @ weights[f"{scale}/fc{layer}.weight"].T
        values = values + weights[f"{scale}/fc{layer}.bias"]
        values = np.maximum(values, 0) if layer < 5 else values
    return np.asarray(values[:, 0], dtype=float)


def to_architecture(model: Model) -> Architecture:
    """Return a model of HW-GPT-Bench; its biases have no counterpart and change no count."""
    width, _, ratios, heads, _ = model
    layers = tuple(
        LayerSpec(AttentionSpec(h, h, width // h), FfnSpec(ratio * width))
        for ratio, h in zip(ratios, heads, strict=True)
    )
    return Architecture(width, layers)


class Labels:
    """Labels members as a search does: one after the other, by sessions.

    ``noise`` is the relative deviation of joules between sessions. Readings state an interval of
    sessions and labels together, or with ``states_sessions=False`` of a label within its session,
    which is what the windows of one process show. Without ``noise`` qualities have none either.
    """

    def __init__(
        self,
        workload: Workload,
        noise: float,
        rng: np.random.Generator,
        *,
        labels_a_session: int = SESSION_LABELS,
        states_sessions: bool = True,
    ) -> None:
        """Begin a first session."""
        self._workload, self._rng, self._size = workload, rng, labels_a_session
        self._between, self._within = noise, _WITHIN * noise
        self._quality_sd = QUALITY_SD if noise else 0.0
        stated = np.hypot(noise if states_sessions else 0.0, self._within)
        self._stated_sd = max(_LEAST_SD, float(stated))
        self._n, self._effect = 0, 0.0

    def trial(self, members: Members, index: int, *, is_audit: bool = False) -> Trial:
        """Return a complete trial of one member, numbered in the order of labelling."""
        if self._n % self._size == 0:
            self._effect = self._rng.normal(0, self._between) if self._between else 0.0
        energy_j = float(members.energy_j[index])
        error = float(members.perplexity[index]) / _PERPLEXITY_SCALE
        if self._between:
            energy_j *= np.exp(self._effect + self._rng.normal(0, self._within))
            error *= np.exp(self._rng.normal(0, self._quality_sd))
        trial = Trial(
            Candidate(self._n, members.architectures[index], is_audit=is_audit),
            Outcome(
                "complete",
                quality=Score(1 - error, self._quality_sd * error),
                measurement=Measurement(self._reading(energy_j)),
            ),
        )
        self._n += 1
        return trial

    def _reading(self, energy_j: float) -> EnergyReading:
        factor = float(np.exp(1.96 * self._stated_sd))
        return EnergyReading(
            energy_j=energy_j,
            low_j=energy_j / factor,
            high_j=energy_j * factor,
            n_repeats=6,
            converged=True,
            meter="replay",
            source="benchmark",
            is_estimate=True,
            device="benchmark",
            workload=self._workload.key,
            batch_size=self._workload.batch_size,
            latency_s=1.0,
            power_w=energy_j,
            duration_s=1.0,
            protocol_hash="benchmark",
        )
