"""Configuration of a search: one frozen record, stored in the run directory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from nas.core.files import place_at
from nas.core.names import TORCH, runtime_names
from nas.core.nearest import did_you_mean
from nas.core.plain import from_plain, require_int, to_plain
from nas.inheriting import TASK
from nas.inheriting.shared_folder import SharedFolder
from nas.records.config_checks import check_goes_with_supernet, check_runtimes
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

# Values of ``teacher``: the search trains the space's largest architecture itself, or adapts its
# checkpoint to the task.
LARGEST, CHECKPOINT = "largest", "checkpoint"
# Ending of a checkpoint's weights, which only its fine-tuning reads.
_WEIGHTS = ".safetensors"
# Default number of finalists of a search from a checkpoint.
FINALISTS = 8


@dataclass(frozen=True, slots=True)
class CheckpointConfig:
    """The checkpoint that a search starts from.

    ``source`` is the folder or name on the hub that it was read from, once. Without
    ``is_fine_tuned`` it is used as it is, which requires a head for the task. Up to ``finalists``
    members of the front are trained again from their first weights for all epochs.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    source: str
    is_fine_tuned: bool = True
    finalists: int = FINALISTS

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not self.source:
            raise ValueError(f"checkpoint source must be a folder or a name, got {self.source!r}")
        require_int("checkpoint finalists", self.finalists, 0)


@dataclass(frozen=True, slots=True)
class GateConfig:
    """Settings of the gate, which prunes candidates before training.

    The gate prunes a candidate whose probability of being Pareto-optimal is below
    ``1 - confidence``; its prediction intervals have the same confidence. After the
    ``startup_trials``, an ``audit_share`` of all trials evaluates pruned candidates, drawn at
    random, to estimate the gate's error rate. No candidate is pruned for being dominated before
    ``startup_trials`` are complete; comparable prior trials count.
    """

    confidence: float = 0.95
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
    """Configuration of a search.

    * ``trials``: number of trained candidates (complete, stopped early or failed). Candidates that
      the gate drops do not count.
    * ``batch_size``: batch size of the measured workload.
    * ``meter``: ``None`` for the best meter of the machine.
    * ``runtime``: what runs the networks whose joules are measured (``search_spaces.runtimes``);
      those of the space by default, or torch. Candidates are trained and evaluated in torch. With
      several runtimes a candidate is trained once, measured in each that its predictions do not
      rule out, and has the joules of the cheapest (``nas.records.runtime_plan``).
      ``runtime_choices`` are then the precisions and sparsities of the members that each of them
      measures; a runtime that it leaves out measures all.
    * ``objectives``, ``max_*``, ``reference``: see ``nas.records.goals.Goals``.
    * ``baselines``: architectures that are evaluated first, without the gate. They count as
      trials; savings are relative to the first.
    * ``teacher``: the network that candidates learn from if ``training.distill`` is set.
      ``"largest"`` is the space's largest architecture, which the search trains first; else the
      folder of an exported artifact.
    * ``checkpoint``: the pretrained checkpoint that the search starts from
      (``nas.searching.from_checkpoint``). It is the teacher ``"checkpoint"`` and the space's
      parent, and the task file is the one in the run directory; ``None`` without one.
    * ``warm_start``: folders of earlier runs of the task, whose trials serve as prior trials (see
      ``nas.searching.gating.warm_start``).
    * ``predictor``: a file of ``nas predictor fit``, from which the gate predicts joules as of
      the first trial. The run directory contains copies of the data needed from it and from
      ``warm_start``.
    * ``calibration``: measure untrained architectures before candidates are chosen, and start with
      labels of earlier searches under the same conditions (``nas.searching.calibration``). Short
      searches do neither.
    * ``refine``: number of final evaluations of trials whose Pareto-optimality is uncertain.
    * ``halving``: early stopping; ``None`` trains all candidates to the end.
    * ``supernet``: weight sharing, candidates are sub-networks of one supernet; ``None`` trains
      each candidate from scratch.
    * ``plugins``: files that add tasks and network families, as returned by ``nas.plugin`` (see
      ``search_spaces.plugins``).
    * ``measure_on``: devices to measure on; the first one's joules are the objective (see
      ``nas.records.device_names``). If empty, any node of the cluster with a meter measures.
    * ``storage``: URL of the study's database.
    * ``files_at``: absolute folder or URL such as ``s3://bucket/prefix`` for weights, checkpoints
      and results, in a subfolder for each run; ``None`` is the run directory.

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
    calibration: bool = True
    supernet: SupernetConfig | None = None
    plugins: tuple[Plugin, ...] = ()
    measure_on: tuple[MeasuredDevice, ...] = ()
    files_at: str | None = None
    checkpoint: CheckpointConfig | None = None
    runtime: tuple[str, ...] = ()
    runtime_choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "runtime", runtime_names(self.runtime))
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
        # Constructed here to raise its errors early.
        goals = self.goals
        if goals.costs and self.halving is not None:
            raise ValueError(
                "halving compares quality and joules alone: objectives must be empty with it, "
                f"got {', '.join(goals.costs)}"
            )
        has_distill = self.training.distill is not None
        # The task's targets may be what a checkpoint teaches, as its vectors are.
        if has_distill != (self.teacher is not None) and self.teacher != CHECKPOINT:
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
            check_goes_with_supernet(self)
        _check_checkpoint(self)
        if not all(isinstance(plugin, Plugin) for plugin in self.plugins):
            raise ValueError(f"plugins must be results of nas.plugin, got {self.plugins!r}")
        if self.space.family != TRANSFORMER and (self.teacher or self.supernet):
            raise ValueError(
                f"teacher and supernet must be None with family {self.space.family!r}: they share "
                f"weights between networks of family {TRANSFORMER}"
            )
        if self.space.has_decoder and (self.teacher or self.supernet):
            raise ValueError(
                "teacher and supernet must be None in a space with decoder_depth: they do not "
                "support encoder-decoder networks yet"
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
        check_runtimes(self)
        if len(self.baselines) > self.trials:
            raise ValueError(
                f"trials must be >= the number of baselines, {len(self.baselines)}, "
                f"got {self.trials}"
            )

    @property
    def runtimes(self) -> tuple[str, ...]:
        """What runs the networks: one runtime or several, the first of which is the main one."""
        return self.runtime or self.space.runtime or (TORCH,)

    @property
    def has_finalists(self) -> bool:
        """Whether the best candidates are trained again for longer when the search has ended."""
        has_longer = self.checkpoint is not None and self.checkpoint.finalists > 0
        return self.supernet is not None or has_longer

    @property
    def measured_device(self) -> str:
        """The device whose joules are the objective: its name on the node that measures it."""
        device = self.measure_on[0].device if self.measure_on else None
        return device or self.device

    @property
    def goals(self) -> Goals:
        """Objectives and limits."""
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
        """Load ``plugins``; each must have been named by a user of this machine.

        Raises:
            ValueError: a plug-in was not named, is missing, or has changed.
        """
        for plugin in self.plugins:
            check_named(plugin)
            load_plugin(plugin)

    def evaluation(self, device: str | None = None) -> EvaluationConfig:
        """Return the section that workers need; ``device`` replaces the search's own."""
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
            checkpoint=self.checkpoint,
            max_latency_s=self.goals.max_latency_s,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, the inverse of ``from_dict``."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, data: Any) -> SearchConfig:
        """Parse the result of ``to_dict``.

        Raises:
            ValueError: a key is unknown or missing, or a value is not allowed.
        """
        names = {f.name for f in fields(cls)}
        # Runs from before there were other runtimes do not name theirs, or name the only one.
        further = {"runtime", "runtime_choices"}
        if not isinstance(data, Mapping) or data.keys() | further != names:
            raise ValueError(
                f"search config must have exactly the keys {', '.join(sorted(names))}"
            )
        if isinstance(data.get("runtime"), str):
            data = {**data, "runtime": [data["runtime"]]}
        return from_plain(cls, data, "search config")


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """Section of a ``SearchConfig`` that workers need to evaluate candidates.

    ``device`` trains, the joules of ``measured_device`` are the objective. ``parent`` has the
    checkpoint and its task file, where workers do not read them in the run directory.
    ``max_latency_s`` is the search's limit, by which a runtime is chosen.
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
    checkpoint: CheckpointConfig | None = None
    parent: SharedFolder | None = None
    max_latency_s: float | None = None

    def here(self, *, has_weights: bool = False) -> EvaluationConfig:
        """Return the section with the task file of its checkpoint on this machine.

        ``has_weights`` fetches the checkpoint's weights, too.

        Raises:
            ValueError, OSError: see ``SharedFolder.here``.
        """
        if self.parent is None:
            return self
        folder = self.parent.here(lambda name: has_weights or not name.endswith(_WEIGHTS))
        return replace(self, task=str(folder / TASK), parent=None)

    def for_finalists(self) -> EvaluationConfig:
        """Return the section by which finalists train: for all epochs."""
        recovery = replace(self.training.recovery, inherit_share=1.0)
        return replace(self, training=replace(self.training, recovery=recovery))


def _check_checkpoint(config: SearchConfig) -> None:
    """Raise ``ValueError`` unless checkpoint, teacher and space belong together."""
    has_parent = config.space.parent is not None
    if config.checkpoint is None:
        if has_parent or config.teacher == CHECKPOINT:
            raise ValueError(
                "checkpoint must be set in a search with a parent: start it by nas search --from"
            )
        return
    if config.teacher != CHECKPOINT or not has_parent:
        raise ValueError(
            f"teacher must be {CHECKPOINT!r} and the space have a parent with a checkpoint, got "
            f"{config.teacher!r}"
        )
    for name in ("supernet", "halving"):
        if getattr(config, name) is not None:
            raise ValueError(
                f"{name} must be left out with a checkpoint, whose candidates start from its "
                f"weights and train for a short time"
            )
    if config.training.recovery.inherit_share is None:
        raise ValueError("inherit_share must be set with a checkpoint, got None")
