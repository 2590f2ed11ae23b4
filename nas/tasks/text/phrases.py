"""Phrases of the training texts, and what two linear models of n-grams say of each.

A few thousand texts are learnt by heart before a small network has learnt what single words say.
So it is shown parts of them too: stretches of one text, and two stretches of two texts after each
other. No label is known for those, but linear models over n-grams are hard to beat where texts
are few, and give each phrase a share of every class: naive Bayes over words and pairs of words,
logistic regression over n-grams of letters, which know the words that are rare by their parts.

What they say is the mean of two views. Those that learnt from all texts know most, and are too
sure of what they have seen; those that never saw the texts that a phrase is of are as sure as
they should be. Scores of the latter, against the labels, weigh the two models. Of a whole text the
label has a share too.

Sources: phrases of two texts, labelled by a model, Tang et al. 2019, "Distilling Task-Specific
Knowledge from BERT into Simple Neural Networks" (theirs saw far more text, ours sees the training
split alone); naive Bayes over pairs of words, Wang & Manning 2012; labels by models that have not
seen the sample, Dao et al. 2021, "Knowledge Distillation as Semiparametric Inference".

Shape legend: N texts, P phrases, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Of ten showings three are of whole texts.
PHRASES_PER_WHOLE = 7 / 3
# Of seven phrases two are made of two texts.
_SPLICED = 2 / 7
FOLDS = 10
_LABEL_SHARE = 0.3
# Of a text that is spliced, in words: longer ones are cut by ``sequence_length`` in any case.
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Phrases:
    """Texts to train on: those given, in their order, their phrases, those given again.

    ``shares`` of every class are ``(len(texts), C)`` and sum to one.
    """

    texts: list[str]
    shares: NDArray[np.float32]


def make_phrases(
    texts: Sequence[str],
    classes_N: NDArray[np.int64],
    phrases: int,
    *,
    lowercase: bool,
    seed: int = 0,
) -> Phrases:
    """Each text several times as it is, and ``phrases`` for each of them.

    Raises:
        ValueError: a class has too few texts for models that have not seen some of them.
    """
    counts_C = np.bincount(classes_N)
    if len(counts_C) < 2 or counts_C.min() < FOLDS:
        raise ValueError(
            f"phrases must have {FOLDS} training texts of each of two classes or more, "
            f"got {counts_C.min()} of one"
        )
    rng = np.random.default_rng(seed)
    texts = [text.lower() for text in texts] if lowercase else list(texts)
    folds_N = _folds(classes_N, rng)
    cut, owners_P = _cut(texts, folds_N, phrases, rng)
    shown = [*texts, *cut]
    owners = np.concatenate([np.arange(len(texts)), owners_P])
    shares_PC = _shares(texts, classes_N, folds_N, shown, owners)
    n = len(texts)
    one_hot_NC = np.eye(len(counts_C))[classes_N]
    shares_PC[:n] = _LABEL_SHARE * one_hot_NC + (1 - _LABEL_SHARE) * shares_PC[:n]
    more = max(0, round(phrases / PHRASES_PER_WHOLE) - 1)
    return Phrases(
        [*shown, *(texts * more)],
        np.concatenate([shares_PC, *([shares_PC[:n]] * more)]).astype(np.float32),
    )


def _folds(classes_N: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A fold for each text, every class spread evenly over them."""
    folds_N = np.empty(len(classes_N), dtype=np.int64)
    for one in np.unique(classes_N):
        members = rng.permutation(np.flatnonzero(classes_N == one))
        folds_N[members] = np.arange(len(members)) % FOLDS
    return folds_N


def _cut(
    texts: Sequence[str], folds_N: NDArray[np.int64], phrases: int, rng: np.random.Generator
) -> tuple[list[str], NDArray[np.int64]]:
    """Phrases, and the text whose fold each is of; both texts of a splice are of one fold."""
    words = [text.split() for text in texts]
    members = [np.flatnonzero(folds_N == fold) for fold in range(FOLDS)]

    def stretch(of: list[str]) -> list[str]:
        n = int(rng.integers(1, len(of) + 1)) if of else 0
        start = int(rng.integers(0, len(of) - n + 1))
        return of[start : start + n]

    found, owners = [], []
    n_spliced = round(phrases * _SPLICED)
    for owner, own in enumerate(words):
        for which in range(phrases):
            phrase = stretch(own)
            if which < n_spliced:
                phrase = phrase + stretch(words[int(rng.choice(members[folds_N[owner]]))])
            found.append(" ".join(phrase[:_LONGEST]))
            owners.append(owner)
    return found, np.array(owners, dtype=np.int64)


def _shares(
    texts: Sequence[str],
    classes_N: NDArray[np.int64],
    folds_N: NDArray[np.int64],
    shown: Sequence[str],
    owners_P: NDArray[np.int64],
) -> Floats:
    """What the models say of ``shown``, whose first are ``texts``: ``(P, C)``."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = CountVectorizer(
        lowercase=False, token_pattern=r"\S+", ngram_range=(1, 2), binary=True
    ).fit(texts)
    letters = TfidfVectorizer(
        lowercase=False, analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2
    ).fit(texts)
    tables = [(found.transform(texts), found.transform(shown)) for found in (words, letters)]
    seen_PF = _scores(tables, classes_N, slice(None), slice(None))
    unseen_PF = np.empty_like(seen_PF)
    folds_P = folds_N[owners_P]
    for fold in range(FOLDS):
        asked = folds_P == fold
        unseen_PF[asked] = _scores(tables, classes_N, folds_N != fold, asked)
    weights = LogisticRegression(C=1e3, max_iter=1000).fit(unseen_PF[: len(texts)], classes_N)
    found_PC: Floats = (weights.predict_proba(seen_PF) + weights.predict_proba(unseen_PF)) / 2
    return found_PC


def _scores(tables: list[Any], classes_N: NDArray[np.int64], learnt: Any, asked: Any) -> Floats:
    """Scores of both models beside each other, of texts ``learnt`` and shown ones ``asked``."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.naive_bayes import MultinomialNB

    models = (MultinomialNB(), OneVsRestClassifier(LogisticRegression(C=4, solver="liblinear")))
    found = []
    for model, (from_texts, from_shown) in zip(models, tables, strict=True):
        model.fit(from_texts[learnt], classes_N[learnt])
        log_shares = np.log(np.maximum(model.predict_proba(from_shown[asked]), 1e-300))
        # Scores of classes add up to zero: of two classes one number is told.
        centred = log_shares - log_shares.mean(axis=1, keepdims=True)
        found.append(centred[:, 1:])
    return np.concatenate(found, axis=1)
