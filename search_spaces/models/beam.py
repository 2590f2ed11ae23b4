"""Greedy and beam search over any decoder.

A decoder is a function ``step(tokens_R, position)`` from the tokens at ``position`` (the end token
before the first) to logits ``(R, C)`` of the next ones. It keeps its own cache of earlier tokens,
whose rows ``reorder`` moves. Padding is never written before the end. Shapes are static, so that a
step may be compiled.

Shape legend: B sources, W beams of each, R = B W rows, T steps, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from search_spaces.workload import PADDING_TOKEN

Step = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, slots=True)
class SearchShape:
    """Number of sources and of steps, the end token, and the device.

    With ``stop_early`` the search stops when all translations have ended, which changes no result.
    """

    n_sources: int
    n_steps: int
    end: int
    device: torch.device | str = "cpu"
    stop_early: bool = True


def greedy_search(step: Step, how: SearchShape) -> Tensor:
    """Write the likeliest token at each step: ``(B, T)``, padded after the end."""
    n_sources, device = how.n_sources, how.device
    found_BT = torch.full((n_sources, how.n_steps), PADDING_TOKEN, device=device)
    tokens_B = torch.full((n_sources,), how.end, device=device)
    is_open_B = torch.ones(n_sources, dtype=torch.bool, device=device)
    for position in range(how.n_steps):
        logits_BC = step(tokens_B, position)
        logits_BC[:, PADDING_TOKEN] = -torch.inf
        tokens_B = logits_BC.argmax(dim=-1)
        found_BT[:, position] = torch.where(is_open_B, tokens_B, PADDING_TOKEN)
        is_open_B = is_open_B & (tokens_B != how.end)
        if how.stop_early and not bool(is_open_B.any()):
            break
    return found_BT


def beam_search(
    step: Step, reorder: Callable[[Tensor], None], beam_size: int, how: SearchShape
) -> Tensor:
    """Return the best of ``beam_size`` translations, by the mean log probability of its tokens.

    The end counts as one token. The ``beam_size`` likeliest continuations by summed log
    probability are followed; finished ones stay among them with their sum. After each step
    ``reorder`` gets the row that each row continues.

    Returns:
        As ``greedy_search``.
    """
    n_sources, device = how.n_sources, how.device
    rows = n_sources * beam_size
    found_RT = torch.full((rows, how.n_steps), PADDING_TOKEN, device=device)
    tokens_R = torch.full((rows,), how.end, device=device)
    lengths_R = torch.zeros(rows, device=device)
    is_open_R = torch.ones(rows, dtype=torch.bool, device=device)
    # At first all rows of a source are the same: only one of them counts.
    scores_BW = torch.full((n_sources, beam_size), -torch.inf, device=device)
    scores_BW[:, 0] = 0
    first_B1 = torch.arange(n_sources, device=device)[:, None] * beam_size
    for position in range(how.n_steps):
        logits_RC = step(tokens_R, position).float()
        logits_RC[:, PADDING_TOKEN] = -torch.inf
        gains_RC = logits_RC.log_softmax(dim=-1)
        n_classes = gains_RC.shape[1]
        # Finished translations continue with padding, at no cost.
        gains_RC = torch.where(is_open_R[:, None], gains_RC, -torch.inf)
        gains_RC[:, PADDING_TOKEN] = torch.where(is_open_R, -torch.inf, 0.0)
        sums_BN = (scores_BW.reshape(-1, 1) + gains_RC).reshape(n_sources, -1)
        scores_BW, chosen_BW = sums_BN.topk(beam_size, dim=1)
        parents_R = (first_B1 + chosen_BW // n_classes).flatten()
        tokens_R = (chosen_BW % n_classes).flatten()
        reorder(parents_R)
        found_RT, is_open_R, lengths_R = (x[parents_R] for x in (found_RT, is_open_R, lengths_R))
        found_RT[:, position] = tokens_R
        lengths_R = lengths_R + is_open_R
        is_open_R = is_open_R & (tokens_R != how.end)
        if how.stop_early and not bool(is_open_R.any()):
            break
    means_BW = scores_BW / lengths_R.reshape(n_sources, beam_size)
    best_B = means_BW.argmax(dim=1) + first_B1[:, 0]
    return found_RT[best_B]
