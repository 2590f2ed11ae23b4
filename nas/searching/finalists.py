"""Which sub-networks of a supernet are fine-tuned."""

from __future__ import annotations

from nas.records.config import SearchConfig
from nas.records.supernet import choose_finalists
from nas.searching.controller.session import Session
from nas.searching.gating.gate import Gate
from nas.store.run import Run


def add_finalists(run: Run, config: SearchConfig, session: Session, gate: Gate) -> None:
    """Choose what is fine-tuned, by joules as far as they are measured or now predicted."""
    assert config.supernet is not None
    complete = [
        record
        for record in session.searched()
        if record.state == "complete" and (record.baseline or config.goals.keeps(record))
    ]
    chosen: list[int] = []
    if complete:
        predicted_j = gate.energies_j([record.architecture for record in complete])
        energies_j = [
            float(predicted) if record.reading is None else record.reading.energy_j
            for record, predicted in zip(complete, predicted_j, strict=True)
        ]
        chosen = choose_finalists(complete, energies_j, config.supernet)
    session.add_finalists(run.keep_finalists(chosen, len(complete)))
