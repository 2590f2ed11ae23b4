"""Llama-type checkpoints give the outputs of transformers' own classes."""

import pytest
import torch

from search_spaces.pretrained import load_checkpoint

transformers = pytest.importorskip("transformers")


def test_logits_are_those_of_transformers(tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=10,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_checkpoint(tmp_path).build()
    tokens = torch.randint(0, 97, (3, 20))
    with torch.no_grad():
        assert torch.allclose(ours(tokens), theirs(tokens).logits, atol=1e-5)
