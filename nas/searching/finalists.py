"""Choose the candidates that train further once a search has ended."""

from __future__ import annotations

from nas.records.supernet import best_of, choose_finalists
from nas.searching.controller.session import Session
from nas.searching.gating.surrogates import ArchitectureSurrogates
from nas.store.run import Run
from search_spaces.space.cuts import is_uncut


def add_finalists(run: Run, session: Session, surrogates: ArchitectureSurrogates) -> None:
    """Choose the candidates of ``run`` to train further, and add them to ``session``.

    With a supernet they are fine-tuned; from a checkpoint they train for all epochs.
    """
    config = run.config
    complete = [
        record
        for record in session.searched()
        if record.state == "complete" and (record.baseline or config.goals.meets_limits(record))
    ]
    chosen: list[int] = []
    if complete:
        by_trial = surrogates.energies_j(complete)
        energies_j = [by_trial[record.number] for record in complete]
        if config.supernet is not None:
            chosen = choose_finalists(complete, energies_j, config.supernet)
        elif config.checkpoint is not None:
            # The checkpoint has been trained for all epochs, whatever its precision.
            parent = config.space.parent
            assert parent is not None
            own = [
                at
                for at, record in enumerate(complete)
                if not is_uncut(record.architecture, parent)
            ]
            best = best_of(
                [complete[at] for at in own],
                [energies_j[at] for at in own],
                config.checkpoint.finalists,
            )
            chosen = [complete[own[at]].number for at in best]
    session.add_finalists(run.keep_finalists(chosen, len(complete)))
