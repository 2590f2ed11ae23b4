"""A fitted predictor on disk: one safetensors file with a JSON header; no pickle.

The header contains the device, meter, protocol and workloads that the predictor was fitted to,
and its features and terms. A predictor that does not match its use is refused in one sentence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.core.files import write_atomic
from predictors.energy.calibration import Conformal
from predictors.energy.costs import FittedPrior
from predictors.energy.features import FEATURES, TERMS, Roofline
from predictors.energy.models import CostPredictor, Prior
from predictors.energy.regressor import LEARNERS, CostRegressor, Standard
from predictors.energy.shape import Shape
from predictors.measurement.records import EnergyRecord
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.workload import Workload

SCHEMA_VERSION = 3
_MAX_BYTES = 64 * 2**20
_HEADER = "joulenas_predictor"
_FITTED = "fitted"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Origin of a predictor's labels. ``workloads`` are keys such as ``digits/b128``.

    Raises:
        ValueError: a name is empty.
    """

    device: str
    source: str
    is_estimate: bool
    protocol_hash: str
    workloads: tuple[str, ...]
    date: str
    versions: dict[str, str]

    def __post_init__(self) -> None:
        """Refuse empty names."""
        for name in ("device", "source", "protocol_hash"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty")
        object.__setattr__(self, "workloads", tuple(self.workloads))

    @classmethod
    def of(cls, records: Sequence[EnergyRecord]) -> Provenance:
        """Return the common origin of ``records``.

        Raises:
            ValueError: there are no records, or records of several devices, sources or protocols.
        """
        if not records:
            raise ValueError("records must hold one or more, got none")
        for name, field in (("device", "place"), ("source",) * 2, ("protocol_hash",) * 2):
            values = {getattr(record.reading, field) for record in records}
            if len(values) > 1:
                raise ValueError(f"records must share one {name}, got {', '.join(sorted(values))}")
        limits = {record.reading.limits_text or "unknown" for record in records}
        if len(limits) > 1:
            raise ValueError(
                f"records must share the limits of the board, got {' and '.join(sorted(limits))}: "
                f"give records of one"
            )
        last = max(records, key=lambda record: record.date)
        return cls(
            device=last.reading.place,
            source=last.reading.source,
            is_estimate=last.reading.is_estimate,
            protocol_hash=last.reading.protocol_hash,
            workloads=tuple(sorted({record.workload.key for record in records})),
            date=last.date,
            versions=dict(last.versions),
        )


@dataclass(frozen=True)
class SavedPredictor:
    """A predictor with the origin of its labels."""

    predictor: CostPredictor
    provenance: Provenance

    def check(
        self,
        *,
        device: str | None = None,
        protocol_hash: str | None = None,
        workload: str | None = None,
    ) -> None:
        """Check that the predictor was fitted for this use; ``None`` is not checked.

        ``workload`` is a key such as ``digits/b128`` and must be among the predictor's.

        Raises:
            ValueError: a mismatch; the message names the remedy.
        """
        own = self.provenance.workloads
        if workload is not None and workload not in own:
            raise ValueError(
                f"predictor's workloads must include {workload!r}, got {', '.join(own)}: fit one "
                f"from records of this workload, or adapt this one with some "
                f"(nas predictor fit --adapt)"
            )
        required = {"device": device, "protocol_hash": protocol_hash}
        for name, value in required.items():
            fitted = getattr(self.provenance, name)
            if value is not None and value != fitted:
                raise ValueError(
                    f"predictor's {name} must be {value!r}, got {fitted!r}: fit one from records "
                    f"of this {name}, or adapt this one with some (nas predictor fit --adapt)"
                )


def save_predictor(saved: SavedPredictor, path: Path) -> None:
    """Write a predictor atomically."""
    from safetensors.numpy import save_file

    arrays: Arrays = {}
    header = {
        "schema": SCHEMA_VERSION,
        "provenance": asdict(saved.provenance),
        "features": list(FEATURES),
        "terms": list(TERMS),
        "predictor": _packed(saved.predictor, _FITTED, arrays),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    metadata = {_HEADER: json.dumps(header, allow_nan=False)}
    write_atomic(path, lambda temporary: save_file(contiguous, temporary, metadata=metadata))


def load_predictor(path: Path) -> SavedPredictor:
    """Read a predictor that ``save_predictor`` wrote.

    Raises:
        ValueError: the file is missing, corrupt, of another schema, or of other features.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"predictor {path} must be a file")
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"predictor {path} must be at most {_MAX_BYTES} bytes")
        with safe_open(path, framework="numpy") as handle:
            metadata = handle.metadata() or {}
            arrays: Arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"predictor {path} must be a readable safetensors file: {error}"
        ) from None
    if _HEADER not in metadata:
        raise ValueError(f"predictor {path} must be a predictor's file, and holds other tensors")
    try:
        header = json.loads(metadata[_HEADER])
        if header["schema"] != SCHEMA_VERSION:
            raise ValueError(f"schema must be {SCHEMA_VERSION}, got {header['schema']!r}")
        for name, current in (("features", FEATURES), ("terms", TERMS)):
            if header[name] != list(current):
                raise ValueError(
                    f"{name} must be those of this version, and differ: fit it again from records"
                )
        provenance = Provenance(
            **{f.name: header["provenance"][f.name] for f in fields(Provenance)}
        )
        predictor = _unpacked(header["predictor"], _FITTED, arrays)
        _try(predictor)
        return SavedPredictor(predictor, provenance)
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"predictor {path} is damaged: {error!r}") from None
    except ValueError as error:
        raise ValueError(f"predictor {path}: {error}") from None


def _try(predictor: CostPredictor) -> None:
    """Predict once, so that damaged numbers raise here and not in a search."""
    layer = LayerSpec(AttentionSpec(1, 1, 4), FfnSpec(4))
    workload = Workload("any", "image_classification", (1, 8, 8), 2, 1)
    with np.errstate(all="ignore"):
        predictor.predict([Architecture(4, (layer,), 4)], workload)


def _packed(predictor: CostPredictor, where: str, arrays: Arrays) -> dict[str, Any]:
    """Return plain data, and add arrays to ``arrays`` under names that begin with ``where``."""
    _pack(predictor.fitted, f"{where}/prior", arrays)
    source, shape = predictor.prior.source, predictor.prior.shape
    data: dict[str, Any] = {
        "roofline": asdict(predictor.prior.roofline),
        "device": predictor.prior.device,
        "shape": None if shape is None else shape.to_dict(),
        "source": None if source is None else _packed(source, f"{where}/source", arrays),
        "log_sd": predictor.log_sd,
        "n_records": predictor.n_records,
        "has_standard": predictor.standard is not None,
        "regressor": None,
    }
    if predictor.standard is not None:
        _pack(predictor.standard, f"{where}/standard", arrays)
    regressor = predictor.regressor
    if regressor is not None:
        for name, learner in regressor.learners.items():
            _pack(learner, f"{where}/{name}", arrays)
        arrays[f"{where}/scores"] = regressor.conformal.scores
        data["regressor"] = {
            "choice": regressor.choice,
            "weights": regressor.weights,
            "learners": list(regressor.learners),
            "n_effective": regressor.conformal.n_effective,
            "kappa": regressor.kappa,
            "label_sd": regressor.label_sd,
        }
    return data


def _unpacked(data: Mapping[str, Any], where: str, arrays: Arrays) -> CostPredictor:
    source, shape = data["source"], data["shape"]
    prior = Prior(
        Roofline(**data["roofline"]),
        None if source is None else _unpacked(source, f"{where}/source", arrays),
        data["device"],
        None if shape is None else Shape.from_dict(shape),
    )
    if prior.device not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {prior.device!r}")
    stored = FittedPrior(**_unpack(FittedPrior, f"{where}/prior", arrays))
    expected = prior.unfitted()
    n_terms, n_basis = len(expected.costs), len(expected.coefficients)
    costs = stored.costs
    if costs.shape != (n_terms,) or not np.all(np.isfinite(costs) & (costs >= 0)):
        raise ValueError(f"costs must be {n_terms} finite numbers >= 0")
    if stored.coefficients.shape != (n_basis,) or not np.all(np.isfinite(stored.coefficients)):
        raise ValueError(f"coefficients must be {n_basis} finite numbers")
    standard = None
    if data["has_standard"]:
        standard = Standard(**_unpack(Standard, f"{where}/standard", arrays))
        if any(values.shape != (len(FEATURES),) for values in vars(standard).values()):
            raise ValueError(f"standard must hold {len(FEATURES)} numbers each")
    regressor = None
    fitted = data["regressor"]
    if fitted is not None:
        assert standard is not None
        learners = {
            name: LEARNERS[name](**_unpack(LEARNERS[name], f"{where}/{name}", arrays))
            for name in fitted["learners"]
        }
        regressor = CostRegressor(
            choice=fitted["choice"],
            prior=stored,
            standard=standard,
            weights=fitted["weights"],
            learners=learners,
            conformal=Conformal(arrays[f"{where}/scores"], fitted["n_effective"]),
            kappa=fitted["kappa"],
            label_sd=fitted["label_sd"],
        )
    return CostPredictor(prior, stored, data["log_sd"], regressor, standard, data["n_records"])


def _pack(record: Any, where: str, arrays: Arrays) -> None:
    """Add the fields of a dataclass of arrays to ``arrays``."""
    for field in fields(record):
        arrays[f"{where}/{field.name}"] = getattr(record, field.name)


def _unpack(kind: Any, where: str, arrays: Arrays) -> Arrays:
    """Return the fields of a dataclass of arrays, as ``_pack`` added them."""
    return {field.name: arrays[f"{where}/{field.name}"] for field in fields(kind)}
