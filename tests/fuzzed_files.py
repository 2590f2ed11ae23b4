"""Valid files of each kind, which the fuzzer changes."""

import json

import numpy as np
from record_fakes import DIGITS, made_record, true_j
from search_fakes import SPACE, changed, drive, make_session

import nas
from nas.records.config import SearchConfig
from nas.store import new_run
from nas.training.weights import save_weights
from predictors.energy.artifact import Provenance, SavedPredictor, save_predictor
from predictors.energy.models import CostPredictor, Observation
from search_spaces.models.build import build
from search_spaces.space.sampling import sample, smallest
from search_spaces.workload import Workload

TASK = {
    "name": "words",
    "kind": "text_classification",
    "train": "train.txt",
    "validation": "train.txt",
    "test": "train.txt",
    "sequence_length": 4,
    "tokens": "word",
    "max_vocabulary": 50,
}
OWN_TOKENIZER = {
    "version": "1.0",
    **dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"), None),
    "added_tokens": [{"id": 3, "content": "[CLS]", "special": True}],
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "model": {"type": "WordLevel", "vocab": {"a": 0, "film": 1, "?": 2}, "unk_token": "?"},
}


def write_artifact(folder):
    """Write the artifact of a network with random weights."""
    folder.mkdir()
    architecture, workload = (
        smallest(SPACE),
        Workload("digits", "image_classification", (1, 8, 8), 10, 4),
    )
    save_weights(build(architecture, workload), folder / "model.safetensors")
    (folder / "architecture.json").write_text(json.dumps(architecture.to_dict()))
    (folder / "workload.json").write_text(json.dumps(workload.to_dict()))
    return folder


def write_run(folder):
    """Write a run with every file that a run may have."""
    config = SearchConfig(
        task="digits", space=SPACE, trials=3, sampler="random", meter="estimate", refine=1
    )
    new_run.create(folder, config, "estimate")
    drive(make_session(folder, trials=3, sampler="random"))
    trial = folder / "trials" / "0" / "replica-1"
    trial.mkdir(parents=True)
    shown = json.dumps(changed(nas.load(folder).trial(0), replica=1).to_dict())
    (trial / "result.json").write_text(shown)
    (folder / "ended.json").write_text('{"reason": "over"}')
    (folder / "finalists.json").write_text('{"of": 3, "numbers": [0, 1]}')
    (folder / "teacher").mkdir()
    teacher = {
        "source": "largest", "architecture": smallest(SPACE).to_dict(), "params": 9,
        "quality": 0.5, "train_energy_j": 1.0, "outputs_energy_j": 1.0, "tabulated": True,
    }  # fmt: skip
    (folder / "teacher" / "teacher.json").write_text(json.dumps(teacher))
    (folder / "supernet").mkdir()
    supernet = {
        "params": 9, "epochs": 1, "energy_j": 1.0,
    }  # fmt: skip
    (folder / "supernet" / "supernet.json").write_text(json.dumps(supernet))
    (folder / "device.jsonl").write_text('{"energy_j": 1.0, "duration_s": 1.0}\n')
    return folder


def write_predictor(path):
    """Write a predictor that was fitted to a few records."""
    generator = np.random.default_rng(6)
    rows = []
    for _ in range(8):
        architecture = sample(SPACE, generator)
        record = made_record(architecture, DIGITS, true_j(architecture))
        rows.append(Observation.of_energy(architecture, DIGITS, record.reading))
    provenance = Provenance("d", "fake", False, "0" * 12, (DIGITS.key,), "2026-11-26", {})
    save_predictor(SavedPredictor(CostPredictor.fit(rows), provenance), path)
    return path
