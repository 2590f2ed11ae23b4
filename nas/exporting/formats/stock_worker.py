"""Load a folder by ``transformers`` alone, or by its own ``model.py``, and compare its outputs.

Run by its path in a fresh process, in which nothing of JouleNAS can be imported. The job is one
JSON object on stdin, the findings are one on stdout. A job with a folder ``to`` quantises instead.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_OURS = ("experiments", "nas", "predictors", "search_spaces")


class _Blocked:
    """Import hook that refuses packages of JouleNAS, which the folder must not need."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Raise ``ImportError`` for packages of JouleNAS."""
        if name.partition(".")[0] in _OURS:
            raise ImportError(f"{name} must not be imported to load an exported folder")


def main() -> int:
    """Read the job, do it, print the findings."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.meta_path.insert(0, _Blocked)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    job = json.load(sys.stdin)
    result = do(job)
    loaded = sorted({name.partition(".")[0] for name in sys.modules} & set(_OURS))
    if loaded:
        raise RuntimeError(f"no package of JouleNAS must be loaded, got {', '.join(loaded)}")
    json.dump(result, out)
    out.close()
    return 0


def do(job: Mapping[str, Any]) -> dict[str, Any]:
    """Quantise the job's folder, or run its network."""
    return quantise(job) if "to" in job else findings(job)


def quantise(job: Mapping[str, Any]) -> dict[str, Any]:
    """Write the network of the job's folder to ``to``, its tensors ``quantised`` by ``by``.

    Returns the class's parameter of each of these tensors, by the tensor's name.
    """
    import transformers

    network, _ = load_stock(job)
    names = _parameters(network, job)
    linears = (name for name, module in network.named_modules() if _is_linear(module))
    plain = sorted(name for name in linears if f"{name}.weight" not in names.values())
    how = {**job["by"], "modules_to_not_convert": plain}
    config = transformers.TorchAoConfig.from_dict(how)  # type: ignore[no-untyped-call]
    network, _ = load_stock(job, quantization_config=config)
    network.save_pretrained(job["to"])
    return {"names": names}


def _parameters(network: Any, job: Mapping[str, Any]) -> dict[str, str]:
    """Return the class's parameter of each tensor that is to be quantised.

    Names of modules and of stored tensors differ, so equal values identify the parameter.
    """
    import torch
    from safetensors.torch import load_file

    tensors = load_file(os.path.join(str(job["folder"]), "model.safetensors"))
    weights = [
        (f"{name}.weight", module.weight)
        for name, module in network.named_modules()
        if _is_linear(module)
    ]
    found: dict[str, str] = {}
    for name in job["quantised"]:
        tensor = tensors[name]
        equal = [
            parameter
            for parameter, weight in weights
            if weight.shape == tensor.shape and torch.equal(weight, tensor.to(weight.dtype))
        ]
        others = [each for each in job["quantised"] if torch.equal(tensors[each], tensor)]
        if not equal or len(others) > len(equal):
            raise ValueError(
                f"{name} must be a linear layer of {type(network).__name__} to be quantised, and "
                f"is none"
            )
        if len(others) < len(equal):
            raise ValueError(
                f"{name} must differ from weights that are not quantised, got the values of "
                f"{', '.join(equal)}"
            )
        # Of equal weights any may have the name.
        found[name] = equal[others.index(name)]
    return found


def _is_linear(module: Any) -> bool:
    import torch

    return isinstance(module, torch.nn.Linear)


def findings(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run the network of the job's folder on its batches; return the largest difference."""
    import torch
    from safetensors.torch import load_file

    load = _by_its_module if job["class"] is None else load_stock
    network, facts = load(job)
    for name, weight in load_file(str(job["weights"])).items() if job["weights"] else ():
        _check_weight(network, name, weight)
    batches = load_file(str(job["batches"]))
    differences, sizes = [], []
    with torch.no_grad():
        for index in range(int(job["n_batches"])):
            keep = batches.get(f"keep.{index}")
            expected = batches[f"outputs.{index}"]
            outputs = outputs_of(network, batches[f"inputs.{index}"], keep, job)
            if outputs.shape != expected.shape:
                raise ValueError(
                    f"outputs must have the shape {tuple(expected.shape)}, got "
                    f"{tuple(outputs.shape)}"
                )
            if keep is not None and job["is_per_token"]:
                # Outputs of padding have no meaning.
                outputs, expected = outputs[keep], expected[keep]
            differences.append((outputs.float() - expected).abs().max())
            sizes.append(expected.abs().max())
    return {
        **facts,
        # ``max`` of Python would leave out NaN, which must fail.
        "output_difference": float(torch.stack(differences).max()),
        "largest_output": float(torch.stack(sizes).max()),
    }


def _check_weight(network: Any, name: str, expected: Tensor) -> None:
    """Raise ``ValueError`` unless the dequantised weight equals ``expected`` to the bit."""
    import torch

    weight = network.get_parameter(name).dequantize()
    if not torch.equal(weight.to(expected.dtype), expected):
        raise ValueError(f"{name} must equal JouleNAS's quantised weight, and differs")


def load_stock(job: Mapping[str, Any], **how: Any) -> tuple[Any, dict[str, Any]]:
    """Return the network of the job's folder in evaluation mode, and facts about its class.

    The job's ``dtype`` is the type of the weights; ``auto`` takes the configuration's.
    """
    import transformers

    auto = getattr(transformers, str(job["class"]))
    network, report = auto.from_pretrained(
        job["folder"],
        gguf_file=job.get("gguf_file"),
        dtype=job["dtype"],
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
        **how,
    )
    return network.eval(), {
        "class": type(network).__name__,
        "version": f"transformers {transformers.__version__}",
        "missing": sorted(report["missing_keys"]),
    }


def _by_its_module(job: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    import torch

    sys.path.insert(0, os.path.join(str(job["folder"]), "python"))
    module = importlib.import_module("model")
    facts = {"class": "model.py", "version": f"torch {torch.__version__}", "missing": []}
    return module.load(), facts


def outputs_of(
    network: Callable[..., Any], inputs: Tensor, keep: Tensor | None, job: Mapping[str, Any]
) -> Tensor:
    """Return the network's outputs in JouleNAS's form; ``keep`` is the mask of tokens."""
    import torch

    if job["class"] is None:
        # The module returns JouleNAS's outputs and masks padding itself.
        own: Tensor = network(inputs)
        return own.transpose(1, 2) if job["kind"] == "question_answering" else own
    mask = {} if keep is None else {"attention_mask": keep.long()}
    returned = network(inputs, **mask)
    if job["kind"] == "question_answering":
        return torch.stack([returned.start_logits, returned.end_logits], dim=-1)
    if not job["kind"].endswith("embedding"):
        logits: Tensor = returned.logits
        return logits
    vectors = _pooled(returned, keep, str(job["pooling"]))
    return vectors / vectors.norm(dim=1, keepdim=True) if job["has_unit_vectors"] else vectors


def _pooled(returned: Any, keep: Tensor | None, pooling: str) -> Tensor:
    import torch

    if pooling.startswith("pooler"):
        pooled: Tensor = returned.pooler_output
        return pooled
    stream: Tensor = returned.last_hidden_state
    if pooling == "cls":
        return stream[:, 0]
    lengths = (
        torch.full((len(stream),), stream.shape[1]) if keep is None else keep.sum(dim=1).long()
    )
    if pooling == "last":
        return stream[torch.arange(len(stream)), lengths - 1]
    if pooling != "mean":
        raise ValueError(f"pooling must be pooler, cls, last or mean, got {pooling}")
    kept = torch.ones(stream.shape[:2]) if keep is None else keep.float()
    return (stream * kept[..., None]).sum(dim=1) / lengths[:, None]


if __name__ == "__main__":
    sys.exit(main())
