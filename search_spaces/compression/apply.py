"""Compress a trained network, and prepare it to run: masks, precision, compiling, CUDA graphs."""

from __future__ import annotations

import copy
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture, AttentionSpec, Compression, FfnSpec
from search_spaces.architecture.layer_kinds import PLAIN, is_quantised
from search_spaces.architecture.simulated import is_simulated
from search_spaces.compression.capture import WhileCompiling, inductor, refuse_empty_graph
from search_spaces.compression.quantize import DTYPES, quantize_linears
from search_spaces.compression.sparsity import prune, search_sparse_algorithms, to_sparse_kernels
from search_spaces.compression.torch_internals import undo_compile, use_private_caches
from search_spaces.models.blocks import CastBlock, Layer
from search_spaces.models.encoder_decoder import EncoderDecoder, EncoderPass, Parts, translate
from search_spaces.models.transformer import Transformer

Network = TypeVar("Network", bound=nn.Module)
Mode = Literal["eager", "compile", "cuda-graph", "compile-cuda-graph"]

# torch.compile refuses the ninth kind of layer by default; a campaign has hundreds.
_MOST_KINDS_OF_LAYERS = 100_000


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A model ready to run one batch shape: ``call`` maps inputs to logits without gradients.

    ``compile_s`` is the time of compiling, 0 where nothing was compiled.
    """

    call: Callable[[Tensor], Tensor]
    mode: Mode
    compile_s: float = 0.0

    def repeat(self, inputs: Tensor) -> Callable[[], object]:
        """Return a function that runs the batch ``inputs``, for timers and meters.

        A graph is replayed without copies to and from its memory, which are no part of the model.
        ``call`` with other inputs changes the batch that it runs.
        """
        if isinstance(self.call, _Captured):
            self.call(inputs)
            return self.call.replay
        return partial(self.call, inputs)


def compress(model: Network, architecture: Architecture) -> Network:
    """Return a compressed copy of ``model``, in evaluation mode.

    Compression is deterministic, so that an artifact may store trained weights and compress when
    it is loaded.

    Raises:
        ValueError: a layer has no kernel for its block's compression.
    """
    if architecture.decoder is not None:
        _check_plain(architecture)
    compressed = copy.deepcopy(model).eval()
    for parameter in compressed.parameters():
        parameter.requires_grad_(False)
    stream = DTYPES[architecture.stream_precision]
    compressed.to(stream)
    if not isinstance(compressed, Transformer) or not isinstance(model, Transformer):
        # An encoder-decoder or another family, which are not compressed.
        return compressed
    for placed in architecture.placed_blocks:
        original = model.get_submodule(placed.path)
        block = _compressed_block(original, placed.path, placed.spec, stream)
        compressed.set_submodule(placed.path, block)
    return compressed


def prepare_for_inference(
    model: nn.Module,
    architecture: Architecture,
    example: Tensor,
    *,
    keep_compiled: bool = False,
    compile_plain: bool = False,
    while_compiling: WhileCompiling = nullcontext,
) -> PreparedModel:
    """Prepare ``model`` to run fast on batches shaped like ``example``.

    An encoder-decoder writes whole translations, all their steps, however early they end.

    On CPUs every model is compiled: quantised ones must be, and compiling alone saves some 10%,
    which must not look like a gain of quantisation. Without a C++ compiler plain models run op by
    op, and quantised ones are an error. On CUDA every model runs as a graph, as launching kernels
    one by one would cost small models more than computing; layers with a quantised block are
    compiled first, each kind once.

    On CPUs this resets torch's compiler, so that models compiled before are compiled again at
    their next call. With ``keep_compiled`` it does not, and torch stops compiling at the ninth
    network of one class. ``compile_plain`` also compiles plain layers on CUDA, to separate the
    compiler's gain from quantisation's. ``while_compiling`` is entered on CUDA while the compiler
    works, which runs no kernel: the device may be released meanwhile.

    Raises:
        RuntimeError: a graph would be empty, or a quantised variant cannot be compiled here.
    """
    if isinstance(model, EncoderDecoder):
        return _prepared_translation(model, example, keep_compiled)
    quantised = any(map(is_quantised, architecture.layers))
    if example.device.type == "cuda":
        search_sparse_algorithms(model, partial(model, example))
        with compiled_layers(
            model, architecture, with_plain=compile_plain, while_compiling=while_compiling
        ) as n_compiled:
            call, first_s = _graphed(model, example)
        if n_compiled:
            return PreparedModel(call, "compile-cuda-graph", first_s)
        return PreparedModel(call, "cuda-graph")
    if not quantised and not _has_compiler():
        return run_eagerly(model)
    return _compiled(model, example, keep_compiled)


def _check_plain(architecture: Architecture) -> None:
    for placed in architecture.placed_blocks:
        if placed.spec.compression != Compression():
            raise ValueError(
                f"{placed.path} must be fp32 and dense beside a decoder, got "
                f"{placed.spec.compression.precision} {placed.spec.compression.sparsity}"
            )


def _prepared_translation(
    model: EncoderDecoder, example: Tensor, keep_compiled: bool
) -> PreparedModel:
    """Prepare whole translations: the encoder's pass and one step are compiled apart."""
    if example.device.type == "cuda":
        captured, _ = _graphed(
            lambda sources: translate(model, sources, stop_early=False), example
        )
        return PreparedModel(captured, "cuda-graph")
    parts = None
    if _has_compiler():
        use_private_caches()
        if not keep_compiled:
            torch.compiler.reset()
        parts = Parts(
            torch.compile(EncoderPass(model), dynamic=False),
            torch.compile(model.decoder.step, dynamic=False),
        )

    def call(sources: Tensor) -> Tensor:
        return translate(model, sources, parts=parts, stop_early=False)

    first_s = _seconds(partial(call, example))
    if parts is None:
        return PreparedModel(call, "eager")
    return PreparedModel(call, "compile", first_s)


def _has_compiler() -> bool:
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def run_eagerly(model: nn.Module) -> PreparedModel:
    """Run ``model`` op by op, without compiling, for a few batches."""

    def call(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = model(inputs)
            return out

    return PreparedModel(call, "eager")


def _compressed_block(
    original: nn.Module, name: str, spec: AttentionSpec | FfnSpec, stream: torch.dtype
) -> nn.Module:
    block = copy.deepcopy(original).eval().requires_grad_(False)
    precision, sparsity = spec.compression.precision, spec.compression.sparsity
    if sparsity != "dense":
        prune(block, name, sparsity)
    # Quantised int8 products read and write the stream's dtype; others have their own.
    inner = DTYPES.get(precision, stream)
    block.to(inner)
    if sparsity == "2:4" and not is_simulated(spec.compression, device_of(block)):
        to_sparse_kernels(block, name)
    if precision not in PLAIN:
        quantize_linears(block, name, precision)
    return block if inner == stream else CastBlock(block, inner, stream)


def device_of(module: nn.Module) -> str:
    """Type of the device of ``module``: ``cpu`` or ``cuda``."""
    return next(module.parameters()).device.type


@contextmanager
def compiled_layers(
    model: nn.Module,
    architecture: Architecture,
    *,
    with_plain: bool = False,
    while_compiling: WhileCompiling = nullcontext,
) -> Iterator[int]:
    """Compile the layers of ``model`` that have a quantised block, within the context.

    Layer by layer, as equal layers are then compiled once. Networks of other families are
    compiled whole.
    """
    parts: list[nn.Module] = [module for module in model.modules() if isinstance(module, Layer)]
    needed = [with_plain or is_quantised(spec) for spec in architecture.layers]
    if len(parts) != len(needed):
        parts, needed = [model], [any(needed)]
    chosen = [part for part, is_needed in zip(parts, needed, strict=True) if is_needed]
    use_private_caches()
    # One backend for all parts: torch compiles again for every other backend.
    backend = inductor(while_compiling)
    for part in chosen:
        # ``fullgraph``: a graph break is an error, not a slower network.
        part.compile(dynamic=False, fullgraph=True, backend=backend)
    with (
        torch.compiler.config.patch(  # type: ignore[attr-defined]
            recompile_limit=_MOST_KINDS_OF_LAYERS,
            accumulated_recompile_limit=_MOST_KINDS_OF_LAYERS,
        ),
        _no_cache_warnings(),
    ):
        try:
            yield len(chosen)
        finally:
            for part in chosen:
                undo_compile(part)


@contextmanager
def _no_cache_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # torchao's tensors miss a compiler cache, which costs some seconds and nothing else.
        warnings.filterwarnings("ignore", message=".*_stable_hash_for_caching")
        yield


def _compiled(model: nn.Module, example: Tensor, keep_compiled: bool) -> PreparedModel:
    if not keep_compiled:
        # Graphs of all models count towards torch's limit, past which it stops compiling.
        torch.compiler.reset()
    use_private_caches()
    compiled = torch.compile(model, dynamic=False)

    def call(inputs: Tensor) -> Tensor:
        # Not inference_mode: quantised tensors are made outside it, and compile checks that.
        with torch.no_grad():
            out: Tensor = compiled(inputs)
            return out

    with _no_cache_warnings():
        return PreparedModel(call, "compile", _seconds(partial(call, example)))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class _Captured:
    """A captured forward pass. ``reads`` keeps the memory alive that the graph addresses."""

    reads: Callable[[Tensor], Tensor]
    graph: torch.cuda.CUDAGraph
    static_input: Tensor
    static_output: Tensor

    def replay(self) -> None:
        """Run the last batch again."""
        self.graph.replay()

    def __call__(self, inputs: Tensor) -> Tensor:
        self.static_input.copy_(inputs)
        self.graph.replay()
        # The graph writes to the same memory each time.
        return self.static_output.clone()


def _graphed(model: Callable[[Tensor], Tensor], example: Tensor) -> tuple[_Captured, float]:
    """Capture one forward pass on the device of ``example``; see ``_capture``."""
    # Streams and graphs are of the current device, whatever the device of the tensors.
    with torch.cuda.device(example.device):
        return _capture(model, example)


def _capture(model: Callable[[Tensor], Tensor], example: Tensor) -> tuple[_Captured, float]:
    """Capture one forward pass; see torch's notes on CUDA graphs for the side stream.

    Also returns by how much the first warm-up pass took longer than the fastest.
    """
    static_input = example.clone()
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())

    def warm_up() -> None:
        model(static_input)
        side.synchronize()

    # Not inference_mode: quantised tensors are made outside it, and compiling checks that.
    with torch.cuda.stream(side), torch.no_grad():
        taken_s = [_seconds(warm_up) for _ in range(3)]
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with refuse_empty_graph(), torch.cuda.graph(graph), torch.no_grad():
        static_output = model(static_input)
    captured = _Captured(model, graph, static_input, static_output)
    return captured, taken_s[0] - min(taken_s)
