"""Run a network in a runtime that converts it: fp32 weights, a file, outputs compared, repeats."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas.core.scratch import scratch
from search_spaces.architecture import Architecture, Compression, LayerSpec
from search_spaces.architecture.blocks import Spec
from search_spaces.compression.apply import compress
from search_spaces.runtimes.base import (
    TOLERANCES,
    Form,
    Running,
    RuntimeRefusal,
    Setting,
    first_line,
)
from search_spaces.runtimes.phases import as_converted
from search_spaces.runtimes.serve import load, relative_difference
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from search_spaces.runtimes.base import Converter


def in_fp32(architecture: Architecture) -> Architecture:
    """Return ``architecture`` with every block in fp32 and its sparsity unchanged."""

    def convert(spec: Spec) -> Spec:
        return replace(spec, compression=Compression("fp32", spec.compression.sparsity))

    layers = tuple(
        LayerSpec(convert(layer.attention), convert(layer.ffn)) for layer in architecture.layers
    )
    return replace(architecture, layers=layers)


def run_converted(
    runtime: Converter,
    network: nn.Module,
    architecture: Architecture,
    workload: Workload,
    inputs: Tensor,
    setting: Setting,
) -> Running:
    """Convert ``network``, load it without torch, compare its outputs with torch's in fp32.

    Raises:
        RuntimeRefusal: it cannot be converted or loaded, or outputs differ by more than allowed.
    """
    refused = runtime.missing() or runtime.refusal(architecture, workload, "cpu")
    if refused is not None:
        raise RuntimeRefusal(refused)
    form = Form.of(architecture)
    module, arguments = as_converted(compress(network, in_fp32(architecture)), workload, inputs)
    expected = outputs_of(module, arguments)
    started_s = time.perf_counter()
    with scratch(runtime.name) as folder:
        runtime.convert(module, arguments, form, folder)
        # What is measured needs none of torch's memory.
        del module
        path = folder / runtime.file(form.precision)
        try:
            served = load(runtime.name, path, precision=form.precision, threads=setting.threads)
            arrays = [each.numpy() for each in arguments]
            outputs = served.call(arrays)[0]
            difference = relative_difference(outputs.astype("float32"), expected.numpy())
            repeat = served.hold(arrays)
        except Exception as error:
            # Runtimes fail on a network's operators as late as here, by errors of their own.
            raise RuntimeRefusal(
                f"{runtime.name} cannot run the network: {first_line(error)}"
            ) from None
    allowed = TOLERANCES[form.precision]
    if difference > allowed:
        raise RuntimeRefusal(
            f"outputs of {runtime.name} in {form.precision} differ from torch's by "
            f"{difference:.2g} of their norm, allowed {allowed:g}"
        )
    return Running(
        repeat,
        runtime.name,
        time.perf_counter() - started_s,
        served.versions,
        difference,
    )


def outputs_of(module: nn.Module, arguments: Sequence[Tensor]) -> Tensor:
    """Return the first output of a module, in fp32."""
    with torch.no_grad():
        outputs = module(*arguments)
    first: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return first.float()
