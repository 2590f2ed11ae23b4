"""Tokenizers inside GGUF files, and ``tokenizer.json`` as GGUF metadata: the same tokens."""

import copy
import json
import random

import numpy as np
import pytest
from gguf_fakes import CONFIG, byte_pairs, sentence_piece, small_gguf
from tokenizers import Tokenizer

from search_spaces.pretrained import load_checkpoint
from search_spaces.pretrained.gguf.pre_tokenizers import PRE_TOKENIZERS
from search_spaces.pretrained.gguf.tokenizer_metadata import tokenizer_metadata

PIECES = ["\u2581", "h", "e", "l", "o", "he", "ll", "\u2581he", "llo", "ello", "hello", "lo",
          "\u2581hello", "oo", "ooo", "w", "\u2581w"]  # fmt: skip


def files_of(tokens, tmp_path):
    config = CONFIG | {"vocab_size": len(tokens["tokenizer.ggml.tokens"]) + 2}
    return load_checkpoint(small_gguf(tmp_path / "m.gguf", config, **tokens)).files


def tokenizer_of(tokens, tmp_path):
    return Tokenizer.from_str(json.dumps(files_of(tokens, tmp_path)["tokenizer.json"]))


def texts_of(tokenizer, text):
    return tokenizer.encode(text).tokens


def test_byte_pairs_are_merged_in_their_order(tmp_path):
    tokenizer = tokenizer_of(byte_pairs(), tmp_path)
    assert texts_of(tokenizer, "hello the") == ["hell", "o", "\u0120the"]
    # Special tokens and those of users are found as a whole.
    assert texts_of(tokenizer, "he<|end|>l<think>l") == ["he", "<|end|>", "l", "<think>", "l"]
    text = "caf\u00e9 \u4f60\u597d \U0001f600 12\t\n the"
    encoding = tokenizer.encode(text)
    assert tokenizer.decode(encoding.ids) == text
    tokens = byte_pairs()["tokenizer.ggml.tokens"]
    assert [tokens[number] for number in encoding.ids] == encoding.tokens


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_texts_are_cut_by_the_rules_of_the_name(pre, tmp_path):
    tokenizer = tokenizer_of(byte_pairs(pre=pre), tmp_path)
    cut = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("It's a12   B!?\n")]
    assert "".join(cut) == "It's\u0120a12\u0120\u0120\u0120B!?\u010a"
    assert cut[:2] == ["It", "'s"] and "\u0120B" in cut
    assert ({"12", "\u0120a12"} & {*cut} == {"12"}) == (pre in ("gpt-2", "llama-bpe"))
    assert ("!?\u010a" in cut) == (pre in ("llama-bpe", "qwen2"))


def test_a_long_number_has_three_digits_a_piece_in_llama_3(tmp_path):
    tokenizer = tokenizer_of(byte_pairs(pre="llama-bpe"), tmp_path)
    cut = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("12345 We'LL")]
    assert cut == ["123", "45", "\u0120We", "'LL"]


@pytest.mark.parametrize(
    ("pre", "changes", "around"),
    [
        ("gpt-2", {"tokenizer.ggml.add_bos_token": None}, (False, False)),
        ("llama-bpe", {"tokenizer.ggml.add_bos_token": None}, (True, False)),
        ("llama-bpe", {}, (False, False)),
        ("smollm", {"tokenizer.ggml.add_bos_token": True}, (True, False)),
        ("qwen2", {"tokenizer.ggml.add_eos_token": True}, (False, True)),
    ],
)
def test_tokens_around_a_text_are_those_of_the_file(pre, changes, around, tmp_path):
    found = texts_of(tokenizer_of(byte_pairs(pre=pre) | changes, tmp_path), "he")
    assert found == ["<|begin|>"] * around[0] + ["he"] + ["<|end|>"] * around[1]


def by_scores(tokens, scores, text):
    """SentencePiece as llama.cpp has it: of all neighbours those of the best token are joined."""
    numbers = {token: number for number, token in enumerate(tokens) if number >= 259}
    parts = list("\u2581" + text.replace(" ", "\u2581"))
    while True:
        pairs = [
            (-scores[numbers[first + second]], place)
            for place, (first, second) in enumerate(zip(parts, parts[1:], strict=False))
            if first + second in numbers
        ]
        if not pairs:
            break
        _, place = min(pairs)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    found = []
    for part in parts:
        found += [part] if part in numbers else [f"<0x{byte:02X}>" for byte in part.encode()]
    return found


def test_sentence_piece_joins_the_pair_of_the_highest_score(tmp_path):
    metadata = sentence_piece(PIECES)
    tokenizer, rng = tokenizer_of(metadata, tmp_path), random.Random(0)
    tokens, scores = (metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores"))
    for _ in range(200):
        text = "".join(rng.choices("helow  x\u00e9\n", k=rng.randrange(1, 20)))
        assert texts_of(tokenizer, text) == ["<s>", *by_scores(tokens, scores, text)]
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text


def test_sentence_piece_may_add_no_space_and_no_token(tmp_path):
    changes = {"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_bos_token": False}
    tokenizer = tokenizer_of(sentence_piece(PIECES, **changes), tmp_path)
    assert texts_of(tokenizer, "hello w") == ["hello", "\u2581w"]


def test_the_use_of_a_tokenizer_is_described(tmp_path):
    tokens = byte_pairs(**{"tokenizer.chat_template": "{{ messages }}"})
    files = files_of(tokens, tmp_path)
    use, config = files["tokenizer_config.json"], files["config.json"]
    assert (use["bos_token"], use["eos_token"]) == ("<|begin|>", "<|end|>")
    assert use["chat_template"] == "{{ messages }}" and use["model_max_length"] == 32
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 0, None)


def test_a_file_may_have_no_tokenizer(tmp_path):
    for changes in ({}, {"tokenizer.ggml.model": "none"}):
        checkpoint = load_checkpoint(small_gguf(tmp_path / "m.gguf", **changes))
        assert checkpoint.tokenizer is None and checkpoint.files.keys() == {"config.json"}


@pytest.mark.parametrize(
    ("tokens", "part"),
    [
        (byte_pairs(pre="tekken"), "tokenizer.ggml.pre must be one of gpt-2, smollm"),
        (byte_pairs(pre=None), "tokenizer.ggml.pre must be one of"),
        (byte_pairs() | {"tokenizer.ggml.merges": None}, "merges must be an array of texts"),
        (byte_pairs() | {"tokenizer.ggml.merges": ["h e", "x"]}, "tokenizer.ggml.merges[1] must"),
        (byte_pairs() | {"tokenizer.ggml.merges": ["h x"]}, "must be two tokens that join"),
        (byte_pairs() | {"tokenizer.ggml.token_type": [1]}, "numbers, one for each token"),
        (byte_pairs() | {"tokenizer.ggml.token_type": ["a"]}, "numbers, one for each token"),
        (byte_pairs() | {"tokenizer.ggml.eos_token_id": 10**6}, "eos_token_id must be a token be"),
        (byte_pairs() | {"tokenizer.ggml.add_bos_token": 1}, "add_bos_token must be true or fal"),
        (byte_pairs() | {"tokenizer.chat_template": 1}, "tokenizer.chat_template must be a text"),
        (sentence_piece(["a", "a"]), "tokenizer.ggml.tokens must be texts that differ"),
        # Each place of such a token would be tried: seconds for a million letters.
        (sentence_piece(["a" * 10**6]), "tokenizer.ggml.tokens must be texts of at most 512 char"),
        (sentence_piece(["a"]) | {"tokenizer.ggml.scores": [0.0]}, "scores must be 260 numbers"),
        (
            sentence_piece(["a", "b", "ab", "ba"]) | {"tokenizer.ggml.scores": [-1e3] * 263},
            "scores must be numbers that differ between tokens of several pieces",
        ),
        (
            sentence_piece(["a"]) | {"tokenizer.ggml.token_type": [1, 1, 1, *[6] * 255, 1, 1]},
            "token_type must be 0 or 256 tokens of bytes",
        ),
    ],
)
def test_tokenizers_that_are_not_valid_are_named(tokens, part, tmp_path):
    kept = {key: value for key, value in tokens.items() if value is not None}
    with pytest.raises(ValueError) as error:
        files_of(kept, tmp_path)
    assert part in str(error.value) and str(tmp_path / "m.gguf") in str(error.value)


def test_there_are_no_more_tokens_than_the_vocabulary_has(tmp_path):
    with pytest.raises(ValueError, match=r"tokens must be 1..40 texts \(the vocabulary's size\)"):
        load_checkpoint(small_gguf(tmp_path / "m.gguf", CONFIG, **byte_pairs()))


def written(content, tmp_path, use=None, vocab_size=400):
    numbers = {"eos_token_id": [0, 1], "bos_token_id": 1}
    return tokenizer_metadata(content, use or {}, numbers, vocab_size, tmp_path / "tokenizer.json")


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_what_was_read_is_written_the_same(pre, tmp_path):
    tokens = byte_pairs(pre=pre, **{"tokenizer.ggml.add_bos_token": True})
    files = files_of(tokens, tmp_path)
    found = written(files["tokenizer.json"], tmp_path, files["tokenizer_config.json"])
    n_tokens = len(tokens["tokenizer.ggml.tokens"])
    for key, value in tokens.items():
        part = found[key][:n_tokens] if key.endswith(("tokens", "token_type")) else found[key]
        assert part == value, key
    assert found["tokenizer.ggml.tokens"][n_tokens] == f"[PAD{n_tokens}]"
    assert set(found["tokenizer.ggml.token_type"][n_tokens:]) == {5}


def test_scores_keep_the_order_of_sentence_pieces(tmp_path):
    before = files_of(sentence_piece(PIECES), tmp_path)["tokenizer.json"]
    metadata = written(before, tmp_path)
    after = files_of({k: list(v) if isinstance(v, np.ndarray) else v for k, v in metadata.items()},
                     tmp_path)["tokenizer.json"]  # fmt: skip
    assert after["model"] == before["model"] and after["added_tokens"] == before["added_tokens"]


def a_model_of_transformers(tmp_path):
    """A ``tokenizer.json`` as files on the hub have it: added tokens outside the vocabulary."""
    content = copy.deepcopy(files_of(byte_pairs(pre="smollm"), tmp_path)["tokenizer.json"])
    for token in content["added_tokens"]:
        if token["content"] == "<think>":
            del content["model"]["vocab"]["<think>"]
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    content["model"]["unk_token"] = "<|end|>"
    content["pre_tokenizer"]["pretokenizers"][1]["trim_offsets"] = False
    del content["pre_tokenizer"]["pretokenizers"][1]["use_regex"]
    content["post_processor"] = {"type": "ByteLevel", "trim_offsets": True}
    return content


def test_parts_without_an_effect_may_differ(tmp_path):
    found = written(a_model_of_transformers(tmp_path), tmp_path)
    assert found["tokenizer.ggml.pre"] == "smollm"
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert found["tokenizer.ggml.tokens"][263] == "<think>"
    assert (found["tokenizer.ggml.bos_token_id"], found["tokenizer.ggml.eos_token_id"]) == (1, 0)


def without(key):
    return lambda content: content["model"].pop(key)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda c: c["model"].update(type="WordPiece"), "model must be BPE for GGUF"),
        (
            lambda c: c.update(normalizer={"type": "Lowercase"}),
            "normalizer is not supported",
        ),
        (
            lambda c: c.update(pre_tokenizer={"type": "Whitespace"}),
            "pre_tokenizer is not supported",
        ),
        (lambda c: c["model"].update(ignore_merges=True), "is not supported in GGUF"),
        (lambda c: c["model"].update(dropout=0.1), "model.dropout is not supported in GGUF"),
        (
            lambda c: c["model"].update(end_of_word_suffix="</w>"),
            "model.end_of_word_suffix is not",
        ),
        (lambda c: c["model"].update(merges=[]), "must have merges for GGUF, and has none"),
        (
            lambda c: c["added_tokens"][0].update(lstrip=True),
            "added_tokens is not supported",
        ),
        (lambda c: c.update(decoder={"type": "WordPiece"}), "decoder is not supported in GGUF"),
        (
            lambda c: c.update(
                post_processor={"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0]}
            ),
            "post_processor is not supported in GGUF",
        ),
        (without("vocab"), "must be a tokenizer.json of byte pairs: KeyError('vocab')"),
        (without("merges"), "must be a tokenizer.json of byte pairs"),
        (
            lambda c: c["model"]["merges"].append("a b c"),
            "must be a tokenizer.json of byte pairs: merges must be pairs, got 'a b c'",
        ),
        (lambda c: c["model"]["merges"].append([]), "merges must be pairs, got []"),
        (
            lambda c: c["model"]["vocab"].update({"\ud800": 399}),
            "must be text that UTF-8 can encode for GGUF, got '\\ud800'",
        ),
    ],
)
def test_what_gguf_does_not_support_is_named(change, part, tmp_path):
    content = a_model_of_transformers(tmp_path)
    change(content)
    with pytest.raises(ValueError) as error:
        written(content, tmp_path)
    line = str(error.value)
    assert part in line and line.isprintable() and str(tmp_path) in line


def test_a_template_that_no_file_can_hold_is_named(tmp_path):
    content = a_model_of_transformers(tmp_path)
    with pytest.raises(ValueError, match=r"tokenizer.chat_template must be text that UTF-8"):
        written(content, tmp_path, {"chat_template": "hello \udfff"})


def test_every_rule_has_a_name_that_is_read(tmp_path):
    for pre in PRE_TOKENIZERS:
        tokenizer_of(byte_pairs(pre=pre), tmp_path)


TEXTS = [
    "hello the hell",
    "  It's 12345 \n\n the!  ",
    "caf\u00e9 <|end|>he<think>",
    "\tTHE'LL, ok?",
]


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2"])
def test_tokens_are_those_of_transformers(pre, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokens = byte_pairs(pre=pre)
    config = CONFIG | {"vocab_size": len(tokens["tokenizer.ggml.tokens"])}
    file = load_checkpoint(small_gguf(tmp_path / "m.gguf", config, **tokens))
    ours = Tokenizer.from_str(json.dumps(file.files["tokenizer.json"]))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    for text in TEXTS:
        assert ours.encode(text).ids == theirs(text)["input_ids"], text
