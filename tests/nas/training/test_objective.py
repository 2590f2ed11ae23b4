import math

import numpy as np
import pytest
import torch

from nas.tasks.base import Split, Task
from nas.tasks.base.metric import ACCURACY, BITS_PER_BYTE, METRICS, Metric, get_metric
from nas.training.evaluate import evaluate
from nas.training.objective import (
    Classification,
    LanguageModelling,
    jackknife,
    objective_of,
    ratio,
)
from search_spaces.workload import Workload


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda m: m.key)
def test_a_better_share_is_a_better_score_and_reads_back(metric):
    shares = np.linspace(0.05, 0.95, 7)
    scores = [metric.score(float(share)) for share in shares]
    assert np.all(np.diff(scores) < 0) if metric.falls else np.all(np.diff(scores) > 0)
    assert [metric.share(s) for s in scores] == pytest.approx(list(shares))


def test_how_a_share_is_said():
    assert ACCURACY.text(0.95, 0.0119) == "95.00% ± 1.19%"
    assert get_metric("bleu").text(0.312, 0.004) == "31.20 ± 0.40"
    # Half a bit of text is a share of 2**-0.5; an error of it by the slope there.
    share = 2**-2.25
    assert BITS_PER_BYTE.text(share, share * math.log(2) * 0.01) == "2.250 ± 0.010"
    assert BITS_PER_BYTE.text(0.0) == "inf"


def test_a_score_that_no_share_has_is_refused():
    with pytest.raises(ValueError, match=r"accuracy must be in \[0, 1\], got 1.2"):
        ACCURACY.share(1.2)
    with pytest.raises(ValueError, match="bits per byte must be a number >= 0, got -1"):
        BITS_PER_BYTE.share(-1)
    with pytest.raises(ValueError, match="metric must be one of accuracy, bits_per_byte"):
        get_metric("loss")
    with pytest.raises(ValueError, match="scale must be one of percent, hundred, bits"):
        Metric("x", "x", "log")


def text_split(n=30, tokens=6, sizes=None):
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 8, (n, tokens))
    return Split(inputs, rng.integers(0, 8, (n, tokens)), sizes)


def test_uniform_guesses_take_the_bits_of_the_alphabet():
    # 6 tokens of 3 bits for 12 bytes: 1.5 bits a byte, whatever the targets are.
    split = text_split(sizes=np.full(30, 12))
    found = evaluate(
        lambda batch: torch.zeros(*batch.shape, 8),
        split,
        batch_size=8,
        objective=LanguageModelling(),
    )
    assert BITS_PER_BYTE.score(found.value) == pytest.approx(1.5)
    assert found.standard_error == pytest.approx(0, abs=1e-9)
    assert found.scores == pytest.approx(np.full(30, 2**-1.5))


def test_bits_are_counted_over_the_whole_text_not_averaged_over_samples():
    sizes = np.where(np.arange(30) < 15, 6, 60)
    split = text_split(sizes=sizes)
    found = evaluate(
        lambda batch: torch.zeros(*batch.shape, 8),
        split,
        batch_size=8,
        objective=LanguageModelling(),
    )
    assert BITS_PER_BYTE.score(found.value) == pytest.approx(30 * 18 / sizes.sum())


def test_bits_need_bytes():
    with pytest.raises(ValueError, match="sizes of a language modelling split"):
        evaluate(
            lambda b: torch.zeros(*b.shape, 8),
            text_split(),
            batch_size=8,
            objective=LanguageModelling(),
        )
    with pytest.raises(ValueError, match=r"sizes must be of shape \(30,\), got \(7,\)"):
        text_split(sizes=np.ones(7, np.int64))


def test_the_jackknife_gives_a_means_own_error():
    values = np.random.default_rng(1).normal(3, 2, 50)
    figures = np.stack([values, np.ones(50)], axis=1)
    assert jackknife(figures, ratio) == pytest.approx(values.std(ddof=1) / math.sqrt(50))
    assert jackknife(figures[:1], ratio) == math.inf


def test_the_jackknife_is_what_other_texts_differ_by():
    rng = np.random.default_rng(2)
    quality = LanguageModelling().quality

    def drawn(n):
        sizes = rng.integers(20, 60, n).astype(float)
        return np.stack([sizes * rng.normal(2.0, 0.4, n), sizes], axis=1)

    many = [float(quality(drawn(80).sum(axis=0))) for _ in range(400)]
    claimed = np.mean([jackknife(drawn(80), quality) for _ in range(40)])
    assert claimed == pytest.approx(np.std(many), rel=0.15)


def test_classification_counts_right_answers():
    outputs = torch.eye(4)[[0, 1, 2, 2]]
    figures = Classification().figures(outputs, np.array([0, 1, 2, 3]), None)
    assert figures.tolist() == [[1, 1], [1, 1], [1, 1], [0, 1]]


def test_a_task_has_its_own_objective_or_its_kinds_or_is_refused():
    class Mine(Task):
        name, workload, split = "mine", None, None

    answers = Workload("mine", "question_answering", (9,), 2, 4, vocab_size=30)
    with pytest.raises(ValueError, match="task mine must be its own: question_answering has none"):
        objective_of(Mine(), answers)
    texts = Workload("mine", "text_classification", (9,), 2, 4, vocab_size=30)
    assert isinstance(objective_of(Mine(), texts), Classification)
    Mine.objective = LanguageModelling()
    assert objective_of(Mine(), texts) is Mine.objective
