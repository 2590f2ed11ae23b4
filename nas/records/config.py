"""What a search is asked to do: one frozen record, stored in the run folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from nas.core.files import place_at
from nas.core.nearest import did_you_mean
from nas.core.plain import from_plain, to_plain
from nas.core.typed import require_int
from nas.records.device_names import MeasuredDevice
from nas.records.goals import Cost, Goals, read_limits
from nas.records.rungs import HalvingConfig
from nas.records.supernet import SupernetConfig
from nas.training.config import TrainingConfig
from search_spaces.architecture import TRANSFORMER, Architecture, require_positive_int
from search_spaces.plugins import Plugin, check_named, load_plugin
from search_spaces.space import SearchSpace
from search_spaces.space.encoding import encode

SamplerName = Literal["ehvi", "tpe", "nsga2", "random"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)

# The teacher that a search trains itself: the space's largest member.
LARGEST = "largest"


@dataclass(frozen=True, slots=True)
class GateConfig:
    """When a candidate is dropped before it costs training.

    A candidate is dropped when it is less likely than ``1 - confidence`` to be on the front;
    intervals shown beside it have that confidence too. Of the candidates to drop,
    ``audit_share`` are evaluated all the same, to estimate how often the gate errs. No
    candidate is dropped before ``startup_trials`` are complete; those of earlier runs count where
    their figures compare.
    """

    confidence: float = 0.9
    audit_share: float = 0.1
    startup_trials: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise ValueError(f"gate confidence must be in (0, 1), got {self.confidence!r}")
        if not 0 <= self.audit_share <= 1:
            raise ValueError(f"gate audit_share must be in [0, 1], got {self.audit_share!r}")
        require_positive_int("gate startup_trials", self.startup_trials)


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """A search: which task and space, how many trained candidates, and how to judge them.

    ``trials`` counts candidates that are trained (complete, stopped early or failed), not those
    the gate drops. ``batch_size`` is that of the measured workload. ``meter`` is ``None`` for the
    best one that the machine has. ``objectives`` are minimised beside joules; they, the limits
    (``max_joules`` is per sample, ``max_latency_s`` of a batch) and ``reference`` are those of
    ``nas.records.goals``; limits may be texts such as ``"100 uJ"``. ``baselines`` are evaluated
    first, whatever the gate thinks of them, and count as trials; savings are named against the
    first. ``teacher`` is what candidates learn from, as ``training.distill`` says: ``"largest"``,
    the space's largest member, which the search trains first, or the folder of an exported
    artifact. ``warm_start`` are folders of earlier runs of the task, whose trials inform the
    search (see ``nas.searching.gating.warm_start``); ``predictor`` is a file of ``nas predictor
    fit`` that the gate predicts joules by from the first trial. The run folder keeps what it needs
    of either. ``refine`` evaluations go at the end to trials whose place at the front is unsure.
    ``halving`` stops trials early that fall behind, ``None`` trains all to their end. ``supernet``
    judges candidates as sub-networks of one that is trained first, ``None`` trains each from
    scratch. ``plugins`` are files that add tasks and families of networks, as ``nas.plugin`` gives
    them (see ``search_spaces.plugins``). ``measure_on`` are devices to measure on, of which the
    search is after the first (see ``nas.records.device_names``); with none of them trials are
    measured where the cluster has a meter. ``storage`` is the URL of a database for the study,
    ``files_at`` an absolute folder or a URL such as ``s3://bucket/prefix`` where weights,
    checkpoints and results are kept, each run's by its name; ``None`` is the run folder.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    task: str
    space: SearchSpace
    trials: int
    batch_size: int = 128
    seed: int = 0
    sampler: SamplerName = "ehvi"
    device: str = "cpu"
    meter: str | None = None
    protocol: str = "screening"
    max_joules: float | None = None
    training: TrainingConfig = field(default_factory=TrainingConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    baselines: tuple[Architecture, ...] = ()
    carbon_g_per_kwh: float = 445.0
    storage: str | None = None
    teacher: str | None = None
    warm_start: tuple[str, ...] = ()
    predictor: str | None = None
    halving: HalvingConfig | None = None
    objectives: tuple[Cost, ...] = ()
    max_latency_s: float | None = None
    max_params: float | None = None
    max_memory_bytes: float | None = None
    reference: tuple[float, ...] | None = None
    refine: int = 0
    supernet: SupernetConfig | None = None
    plugins: tuple[Plugin, ...] = ()
    measure_on: tuple[MeasuredDevice, ...] = ()
    files_at: str | None = None

    def __post_init__(self) -> None:
        require_positive_int("trials", self.trials)
        require_positive_int("batch_size", self.batch_size)
        require_int("seed", self.seed, 0)
        require_int("refine", self.refine, 0)
        if self.sampler not in SAMPLERS:
            raise ValueError(
                f"sampler must be one of {', '.join(SAMPLERS)}, got {self.sampler!r}"
                f"{did_you_mean(self.sampler, SAMPLERS)}"
            )
        if not (math.isfinite(self.carbon_g_per_kwh) and self.carbon_g_per_kwh > 0):
            raise ValueError(
                f"carbon_g_per_kwh must be finite and > 0, got {self.carbon_g_per_kwh!r}"
            )
        read_limits(self)
        # Made once here, so that what is wrong with it is said now.
        goals = self.goals
        if goals.costs and self.halving is not None:
            raise ValueError(
                "halving compares quality and joules alone: objectives must be none with it, "
                f"got {', '.join(goals.costs)}"
            )
        if (self.teacher is None) != (self.training.distill is None):
            raise ValueError(
                f"teacher must be set exactly where training.distill is, got {self.teacher!r} "
                f"and {self.training.distill!r}"
            )
        if self.teacher is None and self.training.recovery.inherit_share is not None:
            raise ValueError("inherit_share must have a teacher to inherit from, got none")
        if self.halving is not None and not self.halving.rungs(self.training.epochs):
            raise ValueError(
                f"halving min_epochs must be below training epochs, {self.training.epochs}, "
                f"got {self.halving.min_epochs}"
            )
        if self.supernet is not None:
            _check_goes_with_supernet(self)
        if not all(isinstance(plugin, Plugin) for plugin in self.plugins):
            raise ValueError(f"plugins must be what nas.plugin gives, got {self.plugins!r}")
        if self.space.family != TRANSFORMER and (self.teacher or self.supernet):
            raise ValueError(
                f"teacher and supernet must be None with family {self.space.family!r}: they share "
                f"weights between networks of family {TRANSFORMER}"
            )
        if self.space.has_decoder and (self.teacher or self.supernet):
            raise ValueError(
                "teacher and supernet must be None in a space with decoder_depth: neither has "
                "learnt of decoders"
            )
        for baseline in self.baselines:
            try:
                encode(baseline, self.space)
            except ValueError as error:
                raise ValueError(
                    f"baseline must lie in space {self.space.name!r}, got {baseline.describe()}: "
                    f"{error}"
                ) from None
        if not all(isinstance(path, str) and path for path in self.warm_start):
            raise ValueError(f"warm_start must be folders of runs, got {self.warm_start!r}")
        names = [device.name for device in self.measure_on]
        if len(set(names)) < len(names):
            raise ValueError(f"measure_on must name each device once, got {', '.join(names)}")
        if self.files_at is not None:
            if not isinstance(self.files_at, str):
                raise ValueError(f"files_at must be a folder or URL, got {self.files_at!r}")
            place_at(self.files_at)
        if self.predictor is not None and not (isinstance(self.predictor, str) and self.predictor):
            raise ValueError(f"predictor must be a file or None, got {self.predictor!r}")
        if len(self.baselines) > self.trials:
            raise ValueError(
                f"trials must be >= the number of baselines, {len(self.baselines)}, "
                f"got {self.trials}"
            )

    @property
    def measured_device(self) -> str:
        """``cpu`` or ``cuda:N``, as what the search is after is called where it is measured."""
        own = self.measure_on[0].device if self.measure_on else None
        return own or self.device

    @property
    def goals(self) -> Goals:
        """What the search is after."""
        return Goals(
            self.objectives,
            self.max_joules,
            self.max_latency_s,
            self.max_params,
            self.max_memory_bytes,
            self.reference,
            self.measured_device,
        )

    def load_plugins(self) -> None:
        """Load ``plugins``, which a user of this machine must have named.

        Raises:
            ValueError: one was not, or is gone, or has changed.
        """
        for plugin in self.plugins:
            check_named(plugin)
            load_plugin(plugin)

    def evaluation(self, device: str | None = None) -> EvaluationConfig:
        """Return the section that workers need, to train on ``device`` in place of this one's."""
        return EvaluationConfig(
            task=self.task,
            space=self.space,
            batch_size=self.batch_size,
            seed=self.seed,
            device=device or self.device,
            measured_device=self.measured_device,
            training=self.training,
            teacher=self.teacher,
            halving=self.halving,
            supernet=self.supernet,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; ``from_dict`` reads it back."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, data: Any) -> SearchConfig:
        """Read ``to_dict``'s form.

        Raises:
            ValueError: a key is unknown or missing, or a value not allowed.
        """
        names = {f.name for f in fields(cls)}
        if not isinstance(data, Mapping) or data.keys() != names:
            raise ValueError(
                f"search config must have exactly the keys {', '.join(sorted(names))}"
            )
        return from_plain(cls, data, "search config")


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """The section of a ``SearchConfig`` by which workers evaluate candidates.

    ``device`` is where they train, ``measured_device`` the one whose joules are the objective.
    """

    task: str
    space: SearchSpace
    batch_size: int
    seed: int
    device: str
    measured_device: str
    training: TrainingConfig
    teacher: str | None = None
    halving: HalvingConfig | None = None
    supernet: SupernetConfig | None = None


def _check_goes_with_supernet(config: SearchConfig) -> None:
    """Raise ``ValueError`` for what makes no sense where sub-networks are not trained."""
    if config.halving is not None:
        raise ValueError("halving must be None with a supernet, whose sub-networks do not train")
    if config.training.recovery.inherit_share is not None:
        raise ValueError("inherit_share must be None with a supernet, which finalists start from")
    if config.goals.needs_latency:
        raise ValueError(
            "max_latency_s and the objective latency must be left out with a supernet: few of its "
            "sub-networks are measured"
        )
    if config.refine:
        raise ValueError(f"refine must be 0 with a supernet, got {config.refine}")
    if config.warm_start:
        raise ValueError(
            "warm_start must be empty with a supernet: qualities of other runs do not compare "
            f"with inherited ones, got {', '.join(config.warm_start)}"
        )
