"""Mutated files of sentence-transformers: a pooling, or one line that names a file."""

import json
import random

from fuzzing import mutated, text_of
from mutated_folders import CONFIGS, tensors_of, write

from search_spaces.pretrained import load_checkpoint

POOLING = {
    "word_embedding_dimension": 8,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False,
}
MODULES = [
    {"idx": i, "name": str(i), "path": "", "type": f"sentence_transformers.models.{kind}"}
    for i, kind in enumerate(["Transformer", "Pooling", "Normalize"])
]


def test_mutated_pooling_is_read_or_refused_by_one_line(tmp_path):
    config = CONFIGS["bert"]
    write(tmp_path, config, tensors_of(config), is_sharded=False)
    (tmp_path / "1_Pooling").mkdir()
    rng, refused = random.Random(0), 0
    for _ in range(300):
        for path, value in (("1_Pooling/config.json", POOLING), ("modules.json", MODULES)):
            text = json.dumps(value)
            if rng.random() < 0.6:
                text = text_of(mutated(json.loads(text), rng), rng)
            (tmp_path / path).write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            checkpoint = load_checkpoint(tmp_path)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(str(tmp_path)) and len(str(error).splitlines()) == 1
        else:
            assert checkpoint.workload.n_classes == 8
    assert 50 < refused < 290
