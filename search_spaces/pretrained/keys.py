"""Keys and values of configurations that all families treat alike."""

from __future__ import annotations

from search_spaces.architecture.style import Activation

# Activations by their names in configurations.
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu-tanh",
    "gelu_pytorch_tanh": "gelu-tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

# Keys without an effect on the outputs of a trained network in evaluation mode.
HARMLESS = frozenset(
    {
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_commit_hash",
        "_name_or_path",
        "attn_implementation",
        "attention_dropout",
        "bad_words_ids",
        "begin_suppress_tokens",
        "bos_token_id",
        "chunk_size_feed_forward",
        "decoder_start_token_id",
        "diversity_penalty",
        "do_sample",
        "dtype",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "eos_token_id",
        "exponential_decay_length_penalty",
        "finetuning_task",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "gradient_checkpointing",
        "initializer_range",
        "label2id",
        "language",
        "length_penalty",
        "max_length",
        "min_length",
        "name_or_path",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "prefix",
        "problem_type",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict",
        "return_dict_in_generate",
        "sep_token_id",
        "suppress_tokens",
        "task_specific_params",
        "temperature",
        "tf_legacy_loss",
        "tokenizer_class",
        "top_k",
        "top_p",
        "torch_dtype",
        "torchscript",
        "transformers.js_config",
        "transformers_version",
        "typical_p",
        "unsloth_fixed",
        "unsloth_version",
        "use_bfloat16",
        "use_cache",
    }
)
# Keys that change outputs and are supported by no family: they must be off (null, false, 0).
UNSUPPORTED = {
    "add_cross_attention": "cross-attention",
    "attn_logit_softcapping": "soft caps of attention logits",
    "cross_attention_hidden_size": "cross-attention",
    "final_logit_softcapping": "soft caps of output logits",
    "is_encoder_decoder": "encoder-decoders",
    "per_layer_config": "layers of different shapes",
    "pruned_heads": "heads pruned on loading",
    "quantization_config": "quantised weights; save the checkpoint dequantised",
    "rope_interleaved": "rotary positions of neighbouring features",
}
