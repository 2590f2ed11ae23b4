"""Generated data with a known answer, for benchmarks and tests of kinds of tasks."""

from __future__ import annotations

import numpy as np

_TEAMS = ("lions", "hawks", "bears", "wolves", "foxes", "eagles", "sharks", "tigers")
_CITIES = ("oslo", "lima", "paris", "cairo", "delhi", "quito", "rome", "tokyo")
_FILLERS = (
    "the {other} sold {n} shirts last year .",
    "the mayor of {place} sent flowers .",
    "it rained in {place} on monday .",
    "fans of the {other} came by bus .",
    "a band from {place} played before noon .",
    "tickets cost {n} coins this season .",
)


def documents(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """``n`` match reports and their summaries, no report twice.

    A report has six to eight sentences. Three of them, anywhere among sentences on other teams and
    places, have the winner, the loser and the place, which the summary names.
    """
    rng = np.random.default_rng(seed)
    reports: dict[str, str] = {}
    while len(reports) < n:
        winner, loser = (str(team) for team in rng.choice(_TEAMS, 2, replace=False))
        place = str(rng.choice(_CITIES))
        sentences = [
            str(rng.choice(_FILLERS)).format(
                other=rng.choice(_TEAMS), place=rng.choice(_CITIES), n=rng.integers(10, 20)
            )
            for _ in range(rng.integers(3, 6))
        ]
        facts = (
            f"the winners are the {winner} .",
            f"the losers are the {loser} .",
            f"they met in {place} .",
        )
        for fact in facts:
            sentences.insert(int(rng.integers(len(sentences) + 1)), fact)
        reports[" ".join(sentences)] = f"{winner} beat {loser} in {place}"
    return list(reports.items())


def lead(text: str, n_sentences: int = 3) -> str:
    """The first sentences of a document, the usual baseline of summaries."""
    return " . ".join(part.strip() for part in text.split(" .")[:n_sentences]).strip()
