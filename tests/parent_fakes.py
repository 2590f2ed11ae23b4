"""Small checkpoints with tokenizers, and tasks in their words, to start searches from."""

import json

from encoder_fakes import encoder
from pretrained_fakes import causal, saved
from text_fakes import BAD, GOOD, THINGS, reviews, write_table, write_task
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *GOOD, *BAD, *THINGS)


def word_tokenizer(path):
    """Write a ``tokenizer.json`` that puts a text between ``[CLS]`` and ``[SEP]``."""
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(word, WORDS.index(word)) for word in ("[CLS]", "[SEP]")],
    )
    path.write_text(tokenizer.to_str())


def byte_tokenizer(path):
    """Write a ``tokenizer.json`` of 90 printable bytes, which gives texts back."""
    letters = {chr(code): index for index, code in enumerate(range(33, 123))}
    # The library's letters for a space and a line's end.
    letters |= {"\u0120": len(letters), "\u010a": len(letters) + 1}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    path.write_text(tokenizer.to_str())


def text_checkpoint(folder, name="bert", head="Model", **changes):
    """Write an encoder of texts with its tokenizer; return the folder."""
    saved(encoder(name, head, **changes), folder)
    word_tokenizer(folder / "tokenizer.json")
    return folder


def sentence_checkpoint(folder, pooling="mean", normalise=True, **changes):
    """Write an encoder like MiniLM with its pooling, as sentence-transformers does."""
    text_checkpoint(folder, **changes)
    width = json.loads((folder / "config.json").read_text())["hidden_size"]
    modules = ["Transformer", "Pooling", *(["Normalize"] if normalise else [])]
    listed = [
        {"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "", "type": f"x.{name}"}
        for i, name in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    values = {"word_embedding_dimension": width, "pooling_mode": pooling}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(values))
    return folder


def embedding_task(folder, n=240, **options):
    """Write texts, one a line, and their task file; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text, _ in reviews(n)))
    values = {"kind": "embeddings", "data": "texts.txt", "sequence_length": 12, **options}
    return write_task(folder / "texts.yaml", **{"name": "texts", **values})


def write_text_pairs(path, n=40, seed=5, columns=("first", "second", "score")):
    """Write pairs of reviews and the share of words that they have in common.

    Each has a number of its own, so that no text is in two files.
    """
    texts = [f"{text} {seed}-{i}" for i, (text, _) in enumerate(reviews(2 * n, seed=seed))]
    lines = [",".join(columns)]
    for first, second in zip(texts[::2], texts[1::2], strict=True):
        one, other = set(first.split()), set(second.split())
        lines.append(f"{first},{second},{5 * len(one & other) / len(one | other):.3f}")
    path.write_text("\n".join(lines) + "\n")
    return path


def causal_checkpoint(folder, name="llama, tied, biases", **changes):
    """Write a language model with its tokenizer; return the folder."""
    saved(causal(name, **changes), folder)
    byte_tokenizer(folder / "tokenizer.json")
    return folder


def image_checkpoint(folder, name="vit", head="Model", **changes):
    """Write an encoder of images with its preprocessor; return the folder."""
    saved(encoder(name, head, **changes), folder)
    values = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


def review_task(folder, n=160, **options):
    """Write reviews and their task file; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "reviews.csv", reviews(n))
    return write_task(
        folder / "reviews.yaml",
        **{
            "name": "reviews",
            "kind": "text_classification",
            "data": "reviews.csv",
            "sequence_length": 12,
            **options,
        },
    )
