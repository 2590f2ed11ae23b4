"""Artifacts and runs to export, with true weights and without a search."""

from __future__ import annotations

import numpy as np
import torch
from record_fakes import made_record
from run_fakes import make_run
from safetensors.torch import save_file

from nas.core.estimate import Score
from nas.core.files import read_json, write_json
from nas.exporting.artifact import load_artifact
from nas.exporting.verify import Conditions
from nas.records.candidate import Measurement, Outcome
from nas.records.trial import Trial
from nas.store.run_file import load
from nas.tasks.base.artifact_files import CHECK
from nas.tasks.registry import get_task
from nas.training.evaluate import evaluate
from nas.training.objective import objective_of
from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD, save_weights
from predictors.measurement.protocol import Protocol
from search_spaces.compression.apply import compress, run_eagerly
from search_spaces.cost.counting import count
from search_spaces.cost.memory import peak_memory_of
from search_spaces.models.build import build
from search_spaces.plugins import name_plugin

FAST = Protocol("fast", warmup_s=0.0, warmup_iterations=2, window_s=0.02, target_half_width=1.0)

# Token tasks of a plug-in, since the fresh processes must find them by name.
TASKS = """
import numpy as np
from nas.tasks.base import Split, Task
from nas.tasks.embeddings.objective import EmbeddingObjective
from search_spaces.workload import Workload


class Words(Task):
    def __init__(self, name, kind):
        self.name, self.kind = name, kind

    def workload(self, batch_size):
        n_classes = 3 if self.kind == "text_classification" else 40
        return Workload(self.name, self.kind, (12,), n_classes, batch_size, vocab_size=40)

    def split(self, name):
        rng = np.random.default_rng(["train", "validation", "test"].index(name))
        tokens = rng.integers(1, 40, (48, 13))
        if self.kind == "language_modelling":
            sizes = np.full(48, 30)
            return Split(tokens[:, :-1].copy(), tokens[:, 1:].copy(), sizes)
        # Texts of several lengths, padded.
        tokens[np.arange(13) >= rng.integers(3, 13, 48)[:, None]] = 0
        return Split(tokens[:, :-1].copy(), tokens.max(axis=1) % 3)


class Vectors(Words):
    def workload(self, batch_size):
        return Workload(self.name, self.kind, (12,), 32, batch_size, vocab_size=40)

    def split(self, name):
        inputs = super().split(name).inputs
        targets = np.full((48, 3), -1)
        targets[:, 0] = np.arange(48)
        return Split(inputs, targets)

    @property
    def objective(self):
        vectors = np.random.default_rng(7).standard_normal((48, 32)).astype(np.float32)
        return EmbeddingObjective(vectors, np.zeros(0), "recall5")


TASKS = {
    "word-vectors": lambda: Vectors("word-vectors", "text_embedding"),
    "padded-words": lambda: Words("padded-words", "text_classification"),
    "next-words": lambda: Words("next-words", "language_modelling"),
}
"""


def save_check(folder, inputs, outputs):
    """Write the batch of an artifact, and what its network makes of it."""
    save_file({"inputs": inputs.contiguous(), "outputs": outputs.contiguous()}, folder / CHECK)


def name_tasks(folder):
    """Make the token tasks known here and to the processes that are started."""
    (folder / "tasks.py").write_text(TASKS)
    return name_plugin(folder / "tasks.py")


def made_artifact(folder, architecture, task_name, *, batch_size=16, seed=0):
    """What an export writes first: random weights, what they are, inputs with their outputs."""
    folder.mkdir(parents=True)
    task = get_task(task_name)
    workload = task.workload(batch_size)
    write_json(folder / ARCHITECTURE, architecture.to_dict())
    write_json(folder / WORKLOAD, workload.to_dict())
    network = build(architecture, workload, generator_seed=seed)
    with torch.no_grad():
        # Fresh norms are the identity, which would hide their being left out.
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=_generator(seed)) * 0.05)
    save_weights(network, folder / WEIGHTS)
    inputs = torch.from_numpy(task.split("validation").inputs[:batch_size])
    outputs = load_artifact(folder).call(inputs).float()
    save_check(folder, inputs, outputs)
    return folder


def conditions(folder, task_name, **changes):
    """What formats of the artifact in ``folder`` are judged by."""
    artifact, task = load_artifact(folder), get_task(task_name)
    found = evaluate(
        artifact.call,
        task.split("validation"),
        batch_size=artifact.workload.batch_size,
        objective=objective_of(task, artifact.workload),
    )
    fields = {
        "task": task_name,
        "device": "cpu",
        "meter": "estimate",
        "protocol": FAST,
        "quality": found.value,
        "quality_tolerance": 0.1,
        "measure": False,
    }
    return Conditions(**fields | changes)


def made_run(folder, architecture, *, seed=0, **changes):
    """A finished run on the digits whose trial 0 has weights, qualities and inputs of its own."""
    task = get_task("digits")
    workload = task.workload(128)

    def judge(candidate):
        network = build(candidate.architecture, workload, generator_seed=seed)
        save_weights(network, folder / "trials" / str(candidate.number) / WEIGHTS)
        call = run_eagerly(compress(network, candidate.architecture)).call
        validation, test = (
            evaluate(call, task.split(name), batch_size=128) for name in ("validation", "test")
        )
        outcome = Outcome(
            "complete",
            quality=Score(validation.value, validation.standard_error),
            test_quality=Score(test.value, test.standard_error),
            params=count(candidate.architecture, workload).params,
            peak_memory_bytes=peak_memory_of(candidate.architecture, workload),
            measurement=Measurement(made_record(candidate.architecture, workload, 1e-5).reading),
        )
        return Trial(candidate, outcome)

    run = make_run(folder, trials=1, seed=seed, judge=judge, baselines=(architecture,), **changes)
    np.save(run.inputs_path, task.split("validation").inputs[:128])
    # Exports measure again, by what the run says it was measured by.
    write_json(folder / "run.json", read_json(folder / "run.json") | {"meter": "estimate"})
    return load(folder)


def _generator(seed):
    return torch.Generator().manual_seed(seed)
