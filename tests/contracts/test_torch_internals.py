"""Private names of torch and torchao: each exists, means what we take it for, or is refused."""

import pytest
import torch
from torch import nn

from search_spaces.architecture import INT4_GROUP_SIZE
from search_spaces.compression import quantize, torch_internals


def arguments(operator):
    """Names of the arguments of one of torch's own operators."""
    return [argument.name for argument in operator.default._schema.arguments]


def test_torch_dynamo_lookup_backend_returns_a_function_of_graph_and_inputs():
    backend, seen = torch_internals.inductor(), []

    def noted(graph, inputs):
        seen.append((graph, inputs))
        return backend(graph, inputs)

    x = torch.arange(8.0)
    assert torch.equal(torch.compile(lambda x: x * 2 + 1, backend=noted)(x), x * 2 + 1)
    assert len(seen) == 1


def test_nn_module_compiled_call_impl_undoes_compile():
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    class Doubled(nn.Module):
        def forward(self, x):
            return x * 2

    module = Doubled()
    module.compile(backend=backend)
    module(torch.ones(1, 2))
    assert len(graphs) == 1
    torch_internals.undo_compile(module)
    torch.compiler.reset()
    module(torch.ones(1, 2))
    assert len(graphs) == 1


def test_cslt_sparse_mm_takes_the_options_of_its_search():
    product = arguments(torch.ops.aten._cslt_sparse_mm)
    assert arguments(torch.ops.aten._cslt_sparse_mm_search) == [
        "compressed_A",
        "dense_B",
        *torch_internals._SEARCH_OPTIONS,
    ]
    assert {*torch_internals._SEARCH_OPTIONS, "alg_id"} <= {*product}


def test_a_sparse_weight_has_packed_values_and_the_algorithm_of_its_product():
    weight = torch.ones(64, 64)
    sparse = torch.sparse.SparseSemiStructuredTensorCUSPARSELT(
        weight.shape, weight, None, None, None, None
    )
    assert sparse.packed is weight and isinstance(sparse.alg_id_cusparselt, int)


def test_inductor_codecache_reads_the_folder_of_headers(tmp_path, monkeypatch):
    from torch._inductor import codecache

    for name in ("_HEADER_DIR", "_HEADER_LOCK_DIR"):
        monkeypatch.setattr(codecache, name, getattr(codecache, name))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "JOULENAS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    torch_internals.use_private_caches()
    assert codecache._HEADER_DIR.startswith(str(tmp_path))
    assert codecache._HEADER_LOCK_DIR.startswith(str(tmp_path))


def test_inductor_config_switches_headers_off_where_their_folder_cannot_be_set(monkeypatch):
    from torch._inductor import codecache, config

    monkeypatch.delattr(codecache, "_HEADER_DIR")
    with config.patch(cpp_cache_precompile_headers=True):
        torch_internals.use_private_caches()
        assert config.cpp_cache_precompile_headers is False


def test_int_mm_multiplies_int8_into_int32():
    a = torch.full((32, 16), 100, dtype=torch.int8)
    out = torch_internals.int8_product(a, a.t())
    assert out.dtype == torch.int32 and (out == 160_000).all()


@pytest.mark.parametrize(
    ("owner", "name", "use"),
    [
        (torch._dynamo, "lookup_backend", torch_internals.inductor),
        (nn.Module, "_compiled_call_impl", lambda: torch_internals.undo_compile(nn.ReLU())),
        (torch, "_cslt_sparse_mm", lambda: torch_internals.searched_sparse_products().__enter__()),
        (
            torch,
            "_cslt_sparse_mm_search",
            lambda: torch_internals.searched_sparse_products().__enter__(),
        ),
        (torch, "_int_mm", lambda: torch_internals.int8_product(torch.ones(1), torch.ones(1))),
    ],
)
def test_a_name_that_a_version_lacks_is_refused_in_one_line(monkeypatch, owner, name, use):
    monkeypatch.delattr(owner, name)
    with pytest.raises(RuntimeError) as caught:
        use()
    message = str(caught.value)
    assert name in message and torch.__version__ in message and "\n" not in message


def weight_of(precision):
    """A quantised weight, and how its activations are quantised."""
    block = nn.Sequential(nn.Linear(2 * INT4_GROUP_SIZE, 32, dtype=quantize.DTYPES.get(precision)))
    quantize.quantize_linears(block.requires_grad_(False), "block", precision)
    return block[0].weight.data


@pytest.mark.parametrize("precision", ["int8", "int8wo", "int4wo"])
def test_torchao_calls_its_weights_as_we_read_them(precision):
    weight = weight_of(precision)
    assert type(weight).__module__.startswith("torchao.")
    # ``store`` writes these parts, ``qat`` reads how activations are rounded.
    assert all(hasattr(weight, name) for name in weight.tensor_data_names)
    assert (getattr(weight, "act_quant_kwargs", None) is not None) == (precision == "int8")


def test_torchao_choose_quant_func_rounds_rows_symmetrically():
    how = weight_of("int8").act_quant_kwargs
    x = torch.tensor([[1.0, -120.0, 0.4], [0.012, 0.0062, 0.0]])
    rounded = quantize.rounded_activations(x, how)
    # Half a step of each row's own scale, and its sign makes no difference.
    step_2 = x.abs().amax(dim=1) / 127
    assert ((rounded - x).abs().amax(dim=1) <= 0.51 * step_2).all()
    assert (rounded != x).any()
    torch.testing.assert_close(
        quantize.rounded_activations(-x[:, [0, 2]], how),
        -quantize.rounded_activations(x[:, [0, 2]], how),
        atol=0.02,
        rtol=0,
    )


def test_a_torchao_without_it_is_refused_in_one_line(monkeypatch):
    from torchao.quantization.quantize_ import common

    monkeypatch.delattr(common, "_choose_quant_func_and_quantize_tensor")
    with pytest.raises(RuntimeError, match=r"quantisation-aware training must have torchao 0\.18"):
        quantize.rounded_activations(torch.ones(1, 2), None)
