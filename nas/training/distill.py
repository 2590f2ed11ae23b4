"""Knowledge distillation: train a student on a teacher's outputs and hidden states.

``(1 - a) CE(labels) + a T^2 KL(teacher_T || student_T) + b MSE(projection(student), teacher)``

with ``a`` the logit weight, ``T`` the temperature and ``b`` the feature weight.

* Soft targets and the factor ``T^2``: Hinton et al. 2015, section 2.
* Logits standardised over the classes of each sample, as a small student may not reach the
  teacher's magnitude: Sun et al. 2024, "Logit Standardization in Knowledge Distillation".
* Hidden states through a learned projection: Romero et al. 2015 (FitNets).
* Layers matched at even distances: Jiao et al. 2020 (TinyBERT).

Hidden states are means over tokens, since patch sizes of student and teacher may differ. Each
teacher dimension is scaled to unit variance over the training split, so that one weight suits all
teachers.

Shape legend: N samples, V versions of a sample, B batch, C classes, L layers, D d_model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nas.core.files import Place, as_local, write_atomic
from nas.tasks.base import Split
from nas.training.augment import make_versions, n_versions
from nas.training.config import DistillConfig, TrainingConfig
from nas.training.objective import Objective
from search_spaces.models.transformer import Transformer

# Above this size no table is written, and the teacher runs at each step.
TABLE_LIMIT_BYTES = 256 * 1024 * 1024
_BATCH = 256


@dataclass(frozen=True, slots=True)
class TeacherOutputs:
    """The teacher's logits ``(B, C)`` and scaled features ``(B, L, D)`` of a batch."""

    logits: Tensor
    features: Tensor


class Teacher(Protocol):
    """Source of a teacher's outputs on training samples."""

    @property
    def n_layers(self) -> int:
        """Number of layers in the features."""

    @property
    def d_model(self) -> int:
        """Width of the features."""

    def outputs(
        self, indices_B: Tensor, versions_B: Tensor | None, batch: Tensor
    ) -> TeacherOutputs:
        """Return outputs for the samples ``indices_B`` of the training split.

        ``batch`` contains the augmented samples, ``versions_B`` their versions if numbered.
        """


class TeacherTable:
    """Table of a teacher's outputs for every version of every training sample."""

    def __init__(self, logits_NVC: Tensor, features_NVLD: Tensor) -> None:
        """Store logits and scaled features, as ``tabulate`` returns them."""
        self._logits_NVC, self._features_NVLD = logits_NVC, features_NVLD

    @property
    def n_layers(self) -> int:
        """See ``Teacher``."""
        return self._features_NVLD.shape[2]

    @property
    def d_model(self) -> int:
        """See ``Teacher``."""
        return self._features_NVLD.shape[3]

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of samples and of versions."""
        return self._logits_NVC.shape[0], self._logits_NVC.shape[1]

    def outputs(
        self, indices_B: Tensor, versions_B: Tensor | None, batch: Tensor
    ) -> TeacherOutputs:
        """See ``Teacher``; ``versions_B`` is required, ``batch`` is ignored."""
        if versions_B is None:
            raise ValueError("a table of outputs must have versions, got none")
        return TeacherOutputs(
            self._logits_NVC[indices_B, versions_B], self._features_NVLD[indices_B, versions_B]
        )

    def to(self, device: str) -> TeacherTable:
        """Return the table on ``device``."""
        return TeacherTable(self._logits_NVC.to(device), self._features_NVLD.to(device))

    def save(self, path: Place) -> None:
        """Write the table atomically."""
        tensors = {"logits": self._logits_NVC.cpu(), "features": self._features_NVLD.cpu()}
        write_atomic(path, lambda temporary: save_file(tensors, str(temporary)))

    @classmethod
    def load(cls, path: Place) -> TeacherTable:
        """Load a table that ``save`` wrote.

        Raises:
            ValueError: the file is missing or corrupt.
        """
        try:
            with as_local(path) as local:
                tensors = load_file(str(local))
            return cls(tensors["logits"], tensors["features"])
        except Exception as error:
            # safetensors raises an error type of its own.
            raise ValueError(
                f"{path} must hold a teacher's outputs: {str(error).splitlines()[0]}"
            ) from error


class LiveTeacher:
    """Teacher that runs on each batch, for data whose table would be too large."""

    def __init__(
        self,
        model: Transformer,
        split: Split,
        *,
        device: str = "cpu",
        has_features: bool = True,
    ) -> None:
        """Compute the scale of the features on the training split, not augmented.

        Without ``has_features`` outputs are logits alone, and the split is not read.
        """
        self._model = model.to(device).eval()
        self.n_layers, self.d_model = len(model.layers), model.d_model
        self._scale = None
        if has_features:
            self._scale = _Scale.of(_features(self._model, split, device))

    def outputs(
        self, indices_B: Tensor, versions_B: Tensor | None, batch: Tensor
    ) -> TeacherOutputs:
        """See ``Teacher``."""
        with torch.no_grad():
            if self._scale is None:
                logits = self._model(batch)
                return TeacherOutputs(logits, logits.new_empty(0))
            logits_BC, features_BLD = self._model.with_features(batch)
        return TeacherOutputs(logits_BC, self._scale(features_BLD))


def _features(model: Transformer, split: Split, device: str) -> Tensor:
    """Features ``(N, L, D)`` of every sample, without the logits, which may be many more."""
    features = []
    with torch.no_grad():
        for batch in torch.split(torch.from_numpy(split.inputs), _BATCH):
            features.append(model.with_features(batch.to(device))[1])
    return torch.cat(features)


def teacher_recipe(config: TrainingConfig, width_ratio: float) -> TrainingConfig:
    """Return the configuration of a teacher whose students train by ``config``.

    Label smoothing is off: it would hide the differences between wrong classes from students
    (Mueller et al. 2019). The learning rate is divided by ``width_ratio``, the teacher's width
    over the width that the rate was tuned for (Yang et al. 2022, table 3).
    """
    return replace(
        config,
        distill=None,
        label_smoothing=0.0,
        learning_rate=config.learning_rate / max(1.0, width_ratio),
    )


def table_bytes(model: Transformer, split: Split, config: TrainingConfig) -> int | None:
    """Return the size of the teacher's table for ``split``, ``None`` without numbered versions."""
    first = torch.from_numpy(split.inputs[:1])
    device = next(model.parameters()).device
    with torch.no_grad():
        logits, features = model.with_features(first.to(device))
    per_version = logits.numel() + features.numel()
    versions = n_versions(first, config)
    return None if versions is None else 4 * per_version * len(split) * versions


def tabulate(
    model: Transformer, split: Split, config: TrainingConfig, *, device: str = "cpu"
) -> TeacherTable:
    """Run ``model`` on every version of every sample under ``config``.

    Raises:
        ValueError: versions are not numbered, as with ``token_dropout``.
    """
    model = model.to(device).eval()
    inputs = torch.from_numpy(split.inputs)
    versions = n_versions(inputs, config)
    if versions is None:
        raise ValueError("versions must have numbers to be tabulated, got token_dropout")
    logits, features = [], []
    for version in range(versions):
        augmented = make_versions(inputs, torch.full((len(inputs),), version), config)
        logits_NC, features_NLD = _run(model, augmented, device)
        logits.append(logits_NC)
        features.append(features_NLD)
    features_NVLD = torch.stack(features, dim=1)
    scale = _Scale.of(features_NVLD.flatten(0, 1))
    return TeacherTable(torch.stack(logits, dim=1), scale(features_NVLD))


def soft_target_loss(
    student_logits_BC: Tensor,
    teacher_logits_BC: Tensor,
    temperature: float,
    *,
    standardise: bool = False,
) -> Tensor:
    """Return the mean over samples of ``T^2 KL(softmax(teacher / T) || softmax(student / T))``.

    With ``standardise`` logits are first standardised over the classes, if there are more than
    two: standardising two logits leaves only their order.
    """
    if standardise and student_logits_BC.shape[-1] > 2:
        student_logits_BC = _standardised(student_logits_BC)
        teacher_logits_BC = _standardised(teacher_logits_BC)
    student_log = F.log_softmax(student_logits_BC / temperature, dim=-1)
    teacher_log = F.log_softmax(teacher_logits_BC / temperature, dim=-1)
    divergence = F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def _standardised(logits_BC: Tensor) -> Tensor:
    mean_B1 = logits_BC.mean(dim=-1, keepdim=True)
    deviation_B1 = logits_BC.std(dim=-1, keepdim=True, unbiased=False)
    return (logits_BC - mean_B1) / (deviation_B1 + 1e-6)


def matched_layers(n_student: int, n_teacher: int) -> list[int]:
    """Return a teacher layer for each student layer: evenly spaced, last matched to last."""
    return [math.ceil((i + 1) * n_teacher / n_student) - 1 for i in range(n_student)]


class Distillation(nn.Module):
    """Distillation loss of one student; contains the projections that only training needs."""

    def __init__(
        self,
        student: Transformer,
        teacher: Teacher,
        config: DistillConfig,
        objective: Objective,
        *,
        seed: int,
    ) -> None:
        """Create a projection for each layer of ``student``, if features are matched."""
        super().__init__()
        self._config, self._teacher, self._objective = config, teacher, objective
        self._layers = matched_layers(len(student.layers), teacher.n_layers)
        d_student = student.d_model
        self.projections = nn.ModuleList()
        if config.feature_weight > 0:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.projections.extend(
                    nn.Linear(d_student, teacher.d_model) for _ in self._layers
                )

    def forward(
        self,
        student: Transformer,
        batch: Tensor,
        targets_B: Tensor,
        indices_B: Tensor,
        versions_B: Tensor | None,
        label_smoothing: float,
    ) -> Tensor:
        """Return the loss of ``student`` on one batch."""
        config = self._config
        teacher = self._teacher.outputs(indices_B, versions_B, batch)
        if self.projections:
            logits_BC, features_BLD = student.with_features(batch)
        else:
            logits_BC = student(batch)
        hard = self._objective.loss(logits_BC, targets_B, label_smoothing)
        soft = soft_target_loss(
            # If logits are per token, each token counts as a sample.
            logits_BC.flatten(0, -2),
            teacher.logits.flatten(0, -2),
            config.temperature,
            standardise=config.standardise,
        )
        loss = (1 - config.logit_weight) * hard + config.logit_weight * soft
        if self.projections:
            projected_BLD = torch.stack(
                [project(features_BLD[:, i]) for i, project in enumerate(self.projections)], dim=1
            )
            matched_BLD = teacher.features[:, self._layers]
            loss = loss + config.feature_weight * F.mse_loss(projected_BLD, matched_BLD)
        return loss


@dataclass(frozen=True, slots=True)
class _Scale:
    """Standardise each feature over the training split."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, features_NLD: Tensor) -> _Scale:
        # Clamped: a constant dimension has zero deviation.
        return cls(features_NLD.mean(0), features_NLD.std(0, unbiased=False).clamp_min(1e-6))

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.deviation


def _run(model: Transformer, inputs: Tensor, device: str) -> tuple[Tensor, Tensor]:
    logits, features = [], []
    with torch.no_grad():
        for batch in torch.split(inputs, _BATCH):
            logits_BC, features_BLD = model.with_features(batch.to(device))
            logits.append(logits_BC)
            features.append(features_BLD)
    return torch.cat(logits), torch.cat(features)
