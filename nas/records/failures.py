"""Records of trials that failed."""

from __future__ import annotations

from dataclasses import replace

from nas.records.trial import TrialRecord


def failed(candidate: TrialRecord, reason: str) -> TrialRecord:
    """``candidate`` as a failure.

    Of ``reason`` the first line is kept, with the next where it ends in a colon: compilers say
    what went wrong there.
    """
    lines = [line.strip() for line in reason.strip().splitlines() if line.strip()]
    kept = next((n for n, line in enumerate(lines, 1) if not line.endswith(":")), len(lines))
    return replace(candidate, state="failed", reason=" ".join(lines[:kept]) or "no reason given")
