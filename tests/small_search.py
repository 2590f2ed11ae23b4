"""A small search of the digits, and a process that runs it and can be killed."""

import os
import time
from dataclasses import replace
from pathlib import Path

from forking import Forked
from record_fakes import FormulaMeasure

from nas.evaluation.evaluator import TrainingEvaluator
from nas.records.candidate import Outcome, Training
from nas.records.config import GateConfig, SearchConfig
from nas.records.rungs import HalvingConfig
from nas.records.supernet import SupernetConfig
from nas.searching.early_stopping import Stopper
from nas.training.config import DistillConfig, RecoveryConfig, SupernetRecipe, TrainingConfig
from search_spaces.space import SearchSpace

SPACE = SearchSpace.from_dict(
    {
        "name": "small",
        "d_model": [16, 24, 32],
        "depth": [1, 2],
        "patch_size": [4],
        "n_heads": [1, 2],
        "n_kv_heads": [1, 2],
        "ffn_ratio": [1, 2],
        "attention_precision": ["fp32", "bf16"],
    }
)
CONFIG = SearchConfig(
    task="digits",
    space=SPACE,
    trials=5,
    batch_size=64,
    seed=1,
    meter="counted",
    protocol="quick",
    training=TrainingConfig(epochs=4, batch_size=64, learning_rate=5e-3),
    gate=GateConfig(startup_trials=3),
)


def config_of(words):
    config = replace(CONFIG, trials=4)
    if "taught" in words:
        config = replace(
            config,
            trials=2,
            teacher="largest",
            training=replace(
                CONFIG.training,
                distill=DistillConfig(feature_weight=0.1),
                recovery=RecoveryConfig(inherit_share=0.5),
            ),
        )
    if "shared" in words:
        supernet = SupernetConfig(
            SupernetRecipe(epochs_factor=3.0), measure_first=1, measure_each=99,
            measure_width=1e9, finalists=2, controls=0,
        )  # fmt: skip
        config = replace(config, supernet=supernet)
    if "halved" in words:
        config = replace(
            config,
            training=replace(config.training, epochs=9),
            halving=HalvingConfig(eta=2, min_epochs=2),
        )
    return config


class Watched(TrainingEvaluator):
    """Writes down each epoch; trials from 2 on hang after epoch 6 of the first driver's."""

    mode = "new"

    def evaluate(self, candidate, folder, measure, tell=None):
        from nas.training.checkpoint import CheckpointManager

        save, log = CheckpointManager.save, folder / f"{self.mode}.epochs"

        def noted(checkpoints, epoch, state):
            with log.open("a") as handle:
                handle.write(f"{epoch} ")
            save(checkpoints, epoch, state)
            while self.mode == "new" and candidate.number >= 2 and epoch == 6:
                time.sleep(1)

        CheckpointManager.save = noted
        try:
            return super().evaluate(candidate, folder, measure, tell)
        finally:
            CheckpointManager.save = save


class WatchedAgain(Watched):
    mode = "resume"


class StopsOne(Stopper):
    """Whatever the rule decides, trial 1 is stopped and no other."""

    def judge(self, number, progress):
        record = super().judge(number, progress)
        if number != 1:
            return None
        training = Training(progress.curve, progress.planned_epochs)
        return record or Outcome("stopped", "to be stopped", training=training)


class Printing:
    """Prints how far the search is."""

    def on_change(self, snapshot, record):
        print(snapshot.complete, snapshot.running, flush=True)

    def on_refine(self, done, total):
        pass

    def on_wait(self, reason):
        pass

    def on_teacher(self, epoch, epochs):
        print(0, 0, flush=True)

    def on_supernet(self, epoch, epochs):
        print("supernet", epoch, flush=True)


def search(folder, mode, workers, words):
    import nas
    from nas.searching import in_process, study

    if "unmeasured" in words:
        # Measuring takes longer than such trainings do.
        in_process.LocalMeasure = FormulaMeasure
        if workers:
            from nas.cluster import measuring as ray_measuring

            ray_measuring.RayMeasure = FormulaMeasure
    if "halved" in words:
        study.TrainingEvaluator = Watched if mode == "new" else WatchedAgain
        study.Stopper = StopsOne
    if mode == "resume":
        # What was searched for, and by how many workers, is in the folder.
        nas.resume(folder, listener=Printing())
    else:
        nas.search(config_of(words), folder, workers=workers, listener=Printing())


def start(folder, mode, workers, *words):
    """Start a ``"new"`` search, or ``"resume"`` it, in a session of its own."""
    here = Path(__file__).parent
    paths = [os.environ.get("PYTHONPATH", ""), str(here), str(here.parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return Forked(search, str(folder), mode, workers, words, env=environment, new_session=True)
