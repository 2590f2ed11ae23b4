"""Small reviews, in whichever form a user keeps them."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

GOOD, BAD = ("good", "fine", "warm"), ("bad", "dull", "cold")
THINGS = ("film", "plot", "actor", "scene", "story", "ending")


def reviews(n, seed=0):
    """``n`` pairs of a text and its label, pos or neg, no text twice."""
    rng = np.random.default_rng(seed)
    found = {}
    while len(found) < n:
        label = "pos" if rng.random() < 0.5 else "neg"
        words = [str(rng.choice(THINGS)) for _ in range(rng.integers(2, 9))]
        words.insert(
            int(rng.integers(len(words))), str(rng.choice(GOOD if label == "pos" else BAD))
        )
        found[" ".join(words)] = label
    return list(found.items())


def write_table(path, pairs, columns=("text", "label")):
    """Write ``pairs`` in the form that the path's ending says."""
    text, label = columns
    rows = [{"row": i, text: t, label: c} for i, (t, c) in enumerate(pairs)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as handle:
            writer = csv.DictWriter(
                handle, ["row", text, label], delimiter="," if path.suffix == ".csv" else "\t"
            )
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(f"{c} {t}\n" for t, c in pairs))
    return path


def write_task(path, **options):
    """A task file of those options; its path as a string."""
    path.write_text(yaml.safe_dump({"name": "reviews", **options}))
    return str(path)
