"""Extract a sub-network of a supernet as a plain network.

Shape legend: O d_out, D d_model, W pooled width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.models.blocks import Layer
from search_spaces.models.elastic import ElasticLayer, ElasticNorm, ElasticProjection
from search_spaces.models.style import HeadTransform, TiedHead
from search_spaces.models.supernet import Supernet, grid_key
from search_spaces.models.transformer import PatchEmbedding, Transformer


def extract(supernet: Supernet, architecture: Architecture) -> Transformer:
    """Copy the weights of ``architecture`` into a plain network on the supernet's device.

    Its outputs are those of ``supernet.active(architecture)`` up to rounding.

    Raises:
        ValueError: the supernet has no weights for ``architecture``.
    """
    supernet.check_holds(architecture)
    with torch.device("meta"):
        # On meta no random weights are drawn, which would be overwritten at once.
        network = Transformer(architecture, supernet.workload)
    network.to_empty(device=next(supernet.parameters()).device)
    width, patch = architecture.d_model, str(architecture.patch_size)
    embed = supernet.embed[patch]
    with torch.no_grad():
        if isinstance(network.embed, PatchEmbedding):
            assert isinstance(embed, ElasticProjection)
            project = network.embed.project
            embed.views(project.in_features, width, None).write_to(project)
        else:
            assert isinstance(embed, nn.Embedding) and isinstance(network.embed, nn.Embedding)
            network.embed.weight.copy_(embed.weight[:, :width])
        if network.position_TD is not None:
            grid = grid_key(architecture.patch_size, architecture.resolution)
            network.position_TD.copy_(supernet.position_TD[grid][:, :width])
        if network.prefix_ND is not None and supernet.prefix_ND is not None:
            network.prefix_ND.copy_(supernet.prefix_ND[:, :width])
        if network.token_types is not None and supernet.token_types is not None:
            network.token_types.weight.copy_(supernet.token_types.weight[:, :width])
        _write_norm(supernet.embed_norm, network.embed_norm)
        for source, layer, spec in zip(
            supernet.layers, network.layers, architecture.layers, strict=False
        ):
            assert isinstance(source, ElasticLayer) and isinstance(layer, Layer)
            _write_norm(source.attention_norm, layer.attention_norm)
            _write_norm(source.ffn_norm, layer.ffn_norm)
            _write_norm(source.attention.q_norm, layer.attention.q_norm)
            _write_norm(source.attention.k_norm, layer.attention.k_norm)
            attention = spec.attention
            queries_D = _by_head(width, attention.n_heads)
            keys_O = _by_head(attention.n_kv_heads * attention.d_head, attention.n_kv_heads)
            rows = {"q": queries_D, "k": keys_O, "v": keys_O}
            for name, weights in source.attention.views(width, attention).items():
                is_output = name == "o"
                ordered = (
                    weights.inputs(queries_D) if is_output else weights.outputs(rows[name][None])
                )
                ordered.write_to(getattr(layer.attention, name))
            for name, weights in source.ffn.views(width, spec.ffn).items():
                weights.write_to(getattr(layer.ffn, name))
        _write_norm(supernet.norm, network.norm)
        if supernet.pooler is not None and network.pooler is not None:
            supernet.pooler.views(width, width, None).write_to(network.pooler)
        if supernet.head_transform is not None and network.head_transform is not None:
            assert isinstance(network.head_transform, HeadTransform)
            dense = supernet.head_transform.dense.views(width, width, None)
            dense.write_to(network.head_transform.dense)
            _write_norm(supernet.head_transform.norm, network.head_transform.norm)
        _write_head(supernet, network)
    return network


def _write_head(supernet: Supernet, network: Transformer) -> None:
    """Copy the output layer; embeddings have none."""
    if isinstance(supernet.head, TiedHead):
        network.head.load_state_dict(supernet.head.state_dict())
    elif isinstance(network.head, nn.Linear):
        assert isinstance(supernet.head, ElasticProjection)
        d_read, n_outputs = network.head.in_features, network.head.out_features
        # Vectors that are joined are interleaved in the supernet.
        order_W = _by_head(d_read, d_read // network.d_model)
        supernet.head.views(d_read, n_outputs, None).inputs(order_W).write_to(network.head)


def _by_head(features: int, heads: int) -> Tensor:
    """Positions of interleaved features, one head after the other."""
    return torch.arange(features).view(-1, heads).T.flatten()


def _write_norm(source: nn.Module | None, target: nn.Module | None) -> None:
    """Copy a norm's parameters; post-norm networks have none after the last layer."""
    if not isinstance(source, ElasticNorm):
        return
    assert isinstance(target, nn.LayerNorm | nn.RMSNorm)
    gain_D, bias_D = source.views(target.normalized_shape[0])
    target.weight.copy_(gain_D)
    if isinstance(target, nn.LayerNorm) and bias_D is not None:
        target.bias.copy_(bias_D)
