"""Train the weights of an architecture, then recover the quality that compression costs.

1. Training starts from a supernet's weights, from the teacher's if ``inherit_share`` is set and
   the architecture fits in the teacher, else from random ones. A teacher's outputs join the loss.
2. Sparse blocks get masks by magnitude, held through a short fine-tune (Mishra et al. 2021,
   section 4).
3. The compressed network is evaluated on the validation split beside its own fp32 weights. If
   quantisation loses more than the threshold, a short quantisation-aware fine-tune follows, and
   the weights with the better validation score are returned.

Only the training split trains or calibrates; this module never reads the test split.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from contextlib import nullcontext
from dataclasses import dataclass, replace

from torch import Tensor, nn

from nas.tasks.base import Task
from nas.training.checkpoint import CheckpointManager
from nas.training.config import Qat, Start, TrainingConfig
from nas.training.distill import Teacher
from nas.training.evaluate import Quality, evaluate
from nas.training.loop import Guard, LoopOptions, train
from nas.training.objective import Objective, objective_of
from nas.training.scores import Scores, score
from search_spaces.architecture import Architecture, Compression
from search_spaces.compression.apply import compress, run_eagerly
from search_spaces.compression.inherit import check_fits_in, inherit
from search_spaces.compression.qat import fake_quantised, is_quantised
from search_spaces.compression.sparsity import Masks
from search_spaces.models.build import build, build_network
from search_spaces.models.transformer import Transformer
from search_spaces.space.cuts import is_uncut
from search_spaces.workload import Workload


@dataclass(frozen=True, slots=True)
class TrainedTeacher:
    """A trained network that candidates learn from, with its outputs on the training split.

    ``scores`` are those by which candidates are cut from it; where there are none, they are
    computed for each candidate. ``is_parent``: the network is the checkpoint of a search, which is
    itself a candidate in each precision.
    """

    model: Transformer
    architecture: Architecture
    outputs: Teacher
    scores: Scores | None = None
    is_parent: bool = False

    def gives(self, architecture: Architecture) -> bool:
        """Whether ``architecture`` starts from the checkpoint's weights and keeps them.

        Only quantisation-aware training may change them, where quantisation costs too much.
        """
        return self.is_parent and is_uncut(architecture, self.architecture)


@dataclass(frozen=True, slots=True)
class EpochResult:
    """Validation result after ``epoch`` of ``epochs``: fp32 weights, not masked or quantised."""

    epoch: int
    epochs: int
    start: Start
    quality: Quality


@dataclass(frozen=True, slots=True)
class Watch:
    """Validation after each of ``epochs`` but the last; ``report`` receives the results.

    ``report`` may end the training by raising an error.
    """

    epochs: Container[int]
    report: Callable[[EpochResult], None]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A candidate's trained fp32 weights and their validation results.

    ``validation`` is that of the compressed network, ``uncompressed`` that of the fp32 weights
    before any quantisation-aware training. ``qat`` records whether such training was needed, and
    whether ``model`` contains its weights.
    """

    model: nn.Module
    start: Start
    uncompressed: Quality
    validation: Quality
    qat: Qat


@dataclass(frozen=True, slots=True)
class Setting:
    """Common settings of all trainings and evaluations of one candidate."""

    task: Task
    workload: Workload
    seed: int
    device: str = "cpu"
    teacher: TrainedTeacher | None = None
    step_guard: Guard = nullcontext

    @property
    def objective(self) -> Objective:
        """Loss and quality metric of the task."""
        return objective_of(self.task, self.workload)

    def train(
        self,
        model: nn.Module,
        config: TrainingConfig,
        *,
        hold: Callable[[], None] | None = None,
        on_epoch: Callable[[int, float], None] | None = None,
        checkpoints: CheckpointManager | None = None,
    ) -> None:
        """Train ``model`` in place; see ``nas.training.loop.train``."""
        train(
            model,
            self.task.split("train"),
            config,
            seed=self.seed,
            objective=self.objective,
            # Without distillation the teacher gives only the first weights.
            teacher=None
            if self.teacher is None or config.distill is None
            else self.teacher.outputs,
            hold=hold,
            options=LoopOptions(self.device, self.step_guard, checkpoints, on_epoch),
        )

    def quality(self, network: nn.Module) -> Quality:
        """Evaluate ``network`` on the validation split."""
        with self.step_guard():
            # Eager mode: compilation does not pay off for a few batches.
            return evaluate(
                run_eagerly(network).call,
                self.task.split("validation"),
                batch_size=self.workload.batch_size,
                objective=self.objective,
                device=self.device,
            )


def fit(
    architecture: Architecture,
    setting: Setting,
    config: TrainingConfig,
    *,
    initial: nn.Module | None = None,
    watch: Watch | None = None,
    checkpoints: CheckpointManager | None = None,
) -> Fitted:
    """Train ``architecture`` on the training split of the task; see the module's description.

    Training that starts from ``initial``, which is modified in place, takes
    ``RecoveryConfig.inherit_share`` of the epochs. ``watch`` and ``checkpoints`` apply to step 1,
    which takes nearly all of the time.

    Raises:
        ValueError: a block's compression has no kernel, or ``config.distill`` is set without
            ``setting.teacher``.
        DivergedError: a training loss is not finite.
    """
    start: Start
    with setting.step_guard():
        model, start = (
            _start(architecture, config, setting)
            if initial is None
            else (initial.to(setting.device), "supernet")
        )
        # A shape without a kernel must fail before training, not after.
        compress(model, architecture)
    recipe = as_started(config, start)

    def look(epoch: int, _: float) -> None:
        if watch is not None and epoch < recipe.epochs and epoch in watch.epochs:
            quality = setting.quality(model.eval())
            model.train()
            watch.report(EpochResult(epoch, recipe.epochs, start, quality))

    teacher = setting.teacher
    if teacher is None or not teacher.gives(architecture):
        setting.train(model, recipe, on_epoch=look, checkpoints=checkpoints)
    return replace(recover(model, architecture, setting, config), start=start)


def recover(
    model: nn.Module, architecture: Architecture, setting: Setting, config: TrainingConfig
) -> Fitted:
    """Run steps 2 and 3 of the module's description; may modify ``model`` in place.

    Raises:
        ValueError, DivergedError: as ``fit`` does.
    """

    def tune(network: nn.Module, masks: Masks) -> None:
        setting.train(network, short(config, config.recovery.share), hold=masks.apply_)

    def compressed(network: nn.Module) -> nn.Module:
        with setting.step_guard():
            return compress(network, architecture)

    def masks_of(network: Transformer) -> Masks:
        with setting.step_guard():
            return Masks.of(network, architecture)

    if isinstance(model, Transformer) and (masks := masks_of(model)).weights:
        tune(model, masks)
    uncompressed = setting.quality(model)
    validation = uncompressed
    if any(block.compression != Compression() for block in architecture.blocks):
        validation = setting.quality(compressed(model))
    plain = Fitted(model, "random", uncompressed, validation, "not needed")
    quality_loss = uncompressed.value - validation.value
    if not is_quantised(architecture) or quality_loss <= config.recovery.qat_threshold:
        return plain
    assert isinstance(model, Transformer)
    with setting.step_guard():
        fake = fake_quantised(model, architecture)
    tune(fake, masks_of(fake))
    with setting.step_guard():
        aware = build(architecture, setting.workload, generator_seed=setting.seed)
        aware = aware.to(setting.device)
        aware.load_state_dict(fake.state_dict())
    again = setting.quality(compressed(aware.eval()))
    if again.value > validation.value:
        return replace(plain, model=aware, validation=again, qat="kept")
    return replace(plain, qat="no better")


def as_started(config: TrainingConfig, start: Start) -> TrainingConfig:
    """Return the configuration for training from ``start``; see ``RecoveryConfig``."""
    share = None if start == "random" else config.recovery.inherit_share
    if share is None:
        return config
    shorter = short(config, share)
    # Shared weights are a compromise between sub-networks: they need the full learning rate.
    return replace(shorter, learning_rate=config.learning_rate) if start == "supernet" else shorter


def short(config: TrainingConfig, share: float) -> TrainingConfig:
    """Return ``config`` with ``share`` of its epochs and a lower learning rate, to fine-tune."""
    return replace(
        config,
        epochs=max(1, round(config.epochs * share)),
        learning_rate=config.learning_rate * config.recovery.learning_rate_factor,
    )


def fits_in(
    teacher: Architecture, architecture: Architecture, keeps_LL: Tensor | None = None
) -> bool:
    """Return whether ``architecture`` can inherit its weights from ``teacher``.

    ``keeps_LL`` has the teacher's layers that stay at each depth, as ``Importance.layers``.
    """
    try:
        check_fits_in(teacher, architecture, keeps_LL)
    except ValueError:
        return False
    return True


def _start(
    architecture: Architecture, config: TrainingConfig, setting: Setting
) -> tuple[nn.Module, Start]:
    teacher, device = setting.teacher, setting.device
    scores = None if teacher is None else teacher.scores
    layers = None if scores is None else scores.importance.layers
    if teacher is None or config.recovery.inherit_share is None:
        is_inherited = False
    else:
        is_inherited = fits_in(teacher.architecture, architecture, layers)
    if teacher is None or not is_inherited:
        network = build_network(architecture, setting.workload, generator_seed=setting.seed)
        return network.to(device), "random"
    if scores is None:
        split = setting.task.split("train")
        scores = score(teacher.model, split, setting.objective, device=device)
    model = inherit(
        teacher.model,
        teacher.architecture,
        architecture,
        setting.workload,
        importance=scores.importance,
        moments=scores.moments,
    )
    return model.to(device), "teacher"
