"""``nas predictor fit``: fit a predictor to records and write it to a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from nas.cli.options.common import add_json, add_records, add_seed, check_seed
from nas.cli.output.tables import print_result

HELP = "fit a predictor to records and save it"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the action."""
    add_records(parser)
    parser.add_argument("--to", type=Path, required=True, help="file to write (.safetensors)")
    parser.add_argument(
        "--adapt",
        type=Path,
        metavar="PREDICTOR",
        help="start from another device's predictor: a dozen records are then enough",
    )
    add_seed(parser, "seed of the folds (default: 0)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the action."""
    check_seed(arguments)
    if arguments.to.suffix != ".safetensors":
        raise ValueError(f"--to must be a .safetensors file, got {arguments.to}")
    from nas.cli.commands.predictor_evaluate import read_corrected
    from nas.core.units import meter_label
    from predictors.energy.artifact import (
        Provenance,
        SavedPredictor,
        load_predictor,
        save_predictor,
    )
    from predictors.energy.models import CostPredictor, Observation

    devices, _ = read_corrected(arguments.records)
    records = [record for device in devices for record in device]
    provenance = Provenance.of(records)
    observations = [Observation.of_record(record) for record in records]
    if arguments.adapt is None:
        predictor = CostPredictor.fit(observations, seed=arguments.seed)
    else:
        source = load_predictor(arguments.adapt).predictor
        predictor = source.adapt(observations, seed=arguments.seed)
    save_predictor(SavedPredictor(predictor, provenance), arguments.to)
    data = {
        "predictor": str(arguments.to),
        "basis": predictor.basis,
        "device": provenance.device,
        "source": provenance.source,
        "is_estimate": provenance.is_estimate,
        "protocol_hash": provenance.protocol_hash,
        "workloads": list(provenance.workloads),
    }
    label = meter_label(provenance.source, is_estimate=provenance.is_estimate)
    text = (
        f"{arguments.to}: {predictor.basis}\n"
        f"  for {provenance.device} ({label}), {', '.join(provenance.workloads)}"
    )
    print_result(data, text, as_json=arguments.json)
    return 0
