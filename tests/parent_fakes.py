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
