"""Small reviews and questions, in whichever form a user keeps them."""

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


def tale(n_lines, seed=0, subjects=("ant", "bee", "cat", "dog")):
    """Lines of three words each, of which the middle one follows from the first."""
    rng = np.random.default_rng(seed)
    verbs = {subject: f"{subject[0]}{subject[0]}eats" for subject in subjects}
    found = []
    for i in range(n_lines):
        subject = str(rng.choice(subjects))
        found.append(f"{subject} {verbs[subject]} {rng.integers(10**6)} {i}\n")
    return "".join(found)


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


WHO = ["Ada", "Ben", "Cleo", "Dan"]
WHERE = ["old Rome", "new Paris", "cold Oslo", "far Lima"]
WHEN = ["in May", "in June", "at dawn", "at noon"]


def article(rng):
    """A sentence with a person, a place and a time in any order, and questions for each."""
    parts = {"who": rng.choice(WHO), "where": rng.choice(WHERE), "when": rng.choice(WHEN)}
    order = rng.permutation(list(parts))
    context = f"The note {rng.integers(999)} says: " + ", ".join(parts[key] for key in order) + "."
    return context, [
        {
            "id": f"{key}-{context}",
            "question": f"{key.capitalize()} is it?",
            "answers": [{"text": str(parts[key]), "answer_start": context.index(parts[key])}],
        }
        for key in parts
    ]


def write_squad(path, n, seed=0):
    rng = np.random.default_rng(seed)
    paragraphs = [{"context": c, "qas": q} for c, q in (article(rng) for _ in range(n))]
    articles = [{"title": "notes", "paragraphs": paragraphs}]
    path.write_text(json.dumps({"version": "1.1", "data": articles}))
    return path


# A made-up language: each word has its own, and sentences run backwards.
TONGUE = {
    "the": "lo", "red": "ruk", "old": "vek", "dog": "hav", "cat": "mis", "bird": "pip",
    "sees": "vidi", "likes": "ami", "finds": "trov", "slowly": "lant", "today": "oj",
}  # fmt: skip


def sentences(n, seed=0):
    """``n`` sentences of four to six words and their translations, none twice."""
    rng = np.random.default_rng(seed)
    words, found = list(TONGUE), {}
    while len(found) < n:
        chosen = [str(rng.choice(words)) for _ in range(rng.integers(4, 7))]
        found[" ".join(chosen)] = " ".join(TONGUE[word] for word in reversed(chosen))
    return list(found.items())


def write_parallel(folder, pairs, name="train"):
    """Write two files whose lines belong together; how a task file names them."""
    for side, column in (("en", 0), ("xx", 1)):
        lines = [f"{pair[column]}\n" for pair in pairs]
        (folder / f"{name}.{side}").write_text("".join(lines), encoding="utf-8")
    return {"source": f"{name}.en", "target": f"{name}.xx"}
