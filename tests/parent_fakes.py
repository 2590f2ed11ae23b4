"""Small checkpoints with tokenizers, tasks in their words, and searches that start from them."""

import json
import os
from contextlib import contextmanager

from encoder_fakes import encoder
from pretrained_fakes import causal, saved
from record_fakes import FormulaMeasure
from search_fakes import report
from text_fakes import BAD, GOOD, THINGS, reviews, write_table, write_task
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

import nas
from nas.store.run_file import is_run

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


def cut_options(**changes):
    """Options of a search that takes seconds."""
    fields = {"meter": "estimate", "seed": 1}
    return {"trials": 3, "finalists": 1, "epochs": 2, "fields": fields, **changes}


@contextmanager
def nothing_measured():
    """Nothing is probed or compiled: a network's joules follow from its size."""
    import pytest

    from search_spaces.compression import probing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas.searching.in_process.LocalMeasure", FormulaMeasure)
        patch.setattr(probing, "probe", lambda device, **_: report(fp32="real", bf16="real"))
        yield


def search_here(source, task, folder):
    """Search from a checkpoint in this process, or go on with the run in ``folder``."""
    with nothing_measured():
        if is_run(folder):
            return nas.resume(folder, workers=0)
        return nas.search(checkpoint=source, task=task, to=folder, cuts=cut_options(), workers=0)


def search_and_die(at, source, task, folder):
    """The same, and die at the durable write of this number, before it is done."""
    writes = 0
    flush = os.fsync

    def fsync(descriptor):
        nonlocal writes
        writes += 1
        if writes == at:
            os._exit(9)
        flush(descriptor)

    os.fsync = fsync
    search_here(source, task, folder)


def search_on_ray(source, task, folder, meter, *, fields=None, **driver):
    """A search whose kernels are not probed, by workers that measure."""
    fields = {"meter": meter, "seed": 1, "protocol": "quick", **(fields or {})}
    with nothing_measured():
        return nas.search(
            checkpoint=source, task=task, to=folder, cuts=cut_options(fields=fields), **driver
        )
