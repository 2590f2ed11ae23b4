"""Adapter to torch: the only file that uses private names of torch.

Each function first checks that torch has what it needs, and raises ``RuntimeError`` with one line
where it has not. ``tests/contracts/test_torch_internals.py`` holds each name to its meaning.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from nas.core.user_folders import use_private_compiler_caches

# Options of a sparse product that its search accepts too.
_SEARCH_OPTIONS = ("bias", "alpha", "out_dtype", "transpose_result")


def require(module: str, *names: str, purpose: str) -> Any:
    """Return ``module``, which may be ``torch`` or a private one, if it has all ``names``.

    Raises:
        RuntimeError: a name is missing from the installed version; the message names its user.
    """
    try:
        imported = import_module(module)
    except ImportError:
        imported = None
    _check(imported, module, *names, purpose=purpose)
    return imported


def _check(owner: object, where: str, *names: str, purpose: str) -> None:
    for name in names:
        if not hasattr(owner, name):
            raise RuntimeError(
                f"{purpose} must have {where}.{name}, which torch {torch.__version__} has not: "
                f"install a version that has it, such as 2.13"
            )


def use_private_caches() -> None:
    """Keep compiled code in the user's own cache folder.

    Torch's default is a folder in ``/tmp`` with the user's name, which another user may have made
    and filled.
    """
    use_private_compiler_caches()
    codecache = import_module("torch._inductor.codecache")
    headers = os.path.join(os.environ["TORCHINDUCTOR_CACHE_DIR"], "precompiled_headers")
    if hasattr(codecache, "_HEADER_DIR") and hasattr(codecache, "_HEADER_LOCK_DIR"):
        # Torch uses its default for these, even where TORCHINDUCTOR_CACHE_DIR is set.
        vars(codecache)["_HEADER_DIR"] = headers
        vars(codecache)["_HEADER_LOCK_DIR"] = os.path.join(headers, "locks")
        return
    option = "cpp_cache_precompile_headers"
    config = require("torch._inductor.config", option, purpose="compiling in private folders")
    setattr(config, option, False)


def inductor() -> Callable[[Any, Any], Any]:
    """Return torch's default compiler: a function of a graph and its example inputs."""
    dynamo = require("torch._dynamo", "lookup_backend", purpose="compiling layer by layer")
    backend: Callable[[Any, Any], Any] = dynamo.lookup_backend("inductor")
    return backend


def undo_compile(module: nn.Module) -> None:
    """Undo ``module.compile()``, for which torch has no public call."""
    _check(nn.Module, "torch.nn.Module", "_compiled_call_impl", purpose="compiling layers")
    module._compiled_call_impl = None


@contextmanager
def searched_sparse_products() -> Iterator[dict[int, int]]:
    """Search cuSPARSELt's fastest algorithm for each 2:4 product that runs within the context.

    Yields the algorithms by the address of the packed weight; they are filled in as products run.
    """
    names = ("_cslt_sparse_mm", "_cslt_sparse_mm_search")
    module = require("torch", *names, purpose="2:4 sparsity on CUDA")
    product, search = (getattr(module, name) for name in names)
    algorithms: dict[int, int] = {}

    def searched(packed: Tensor, dense: Tensor, **options: Any) -> Tensor:
        # With the product's own arguments: their layout differs between versions of torch.
        shared = {name: options[name] for name in _SEARCH_OPTIONS if name in options}
        algorithms[packed.data_ptr()] = search(packed, dense, **shared)
        result: Tensor = product(packed, dense, **options)
        return result

    with mock.patch.object(torch, "_cslt_sparse_mm", searched):
        yield algorithms


def int8_product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply two int8 matrices into int32, by the kernel that quantised layers run."""
    product: Tensor = require("torch", "_int_mm", purpose="int8 products")._int_mm(a, b)
    return product
