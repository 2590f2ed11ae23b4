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
