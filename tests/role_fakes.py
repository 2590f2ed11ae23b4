"""Two unlike devices to measure on, and trials that note where they train; all by formula."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fakes import FakeClock, FakeMeter
from fault_fakes import note, wait_for
from record_fakes import made_record
from search_fakes import WORKLOAD, changed, finished, truth

from predictors.measurement.exclusive import DeviceLock
from search_spaces.cost.counting import count

BIG, SMALL = "Big board", "Small board"
# What either is called where it is, and the meter that a package registers for it.
METERS = {"cpu": "fake-big", "cuda:0": "fake-small"}


def big_meter(device):
    return _meter("fake-big", BIG)


def small_meter(device):
    return _meter("fake-small", SMALL)


def _meter(name, device):
    meter = FakeMeter(FakeClock())
    meter.name, meter.source, meter.device = name, f"{name}-counter", device
    return meter


def register_meters(folder):
    """Put a package into ``folder`` that registers both, as one of a user's own would."""
    info = Path(folder) / "role_meters-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: role-meters\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[joulenas.meters]\nfake-big = role_fakes:big_meter\nfake-small = role_fakes:small_meter\n"
    )


def big_j(architecture):
    """What products cost."""
    return truth(architecture)[1]


def small_j(architecture):
    """What launches cost, however wide a layer is: little of what the other's joules depend on."""
    return 1e-5 * architecture.depth + 1e-15 * count(architecture, WORKLOAD).params


def node():
    import ray

    return ray.get_runtime_context().get_node_id()


def measuring(log):
    """Stands for ``measure_fresh``, and notes what it measured where, and from when to when."""

    def measure(architecture, workload, *, device, meter, weights, lock_folder, **_):
        with DeviceLock(lock_folder, device).exclusive():
            began_s = time.time()
            time.sleep(0.05)
            window_s = f"{began_s},{time.time()}"
            note(log / "measured", f"{weights.parent.name},{device},{node()},{window_s}")
        assert METERS[device] == meter
        is_big = device == "cpu"
        energy_j = (big_j if is_big else small_j)(architecture)
        return made_record(
            architecture, workload, energy_j, device=BIG if is_big else SMALL, source=f"{meter}-c"
        )

    return measure


@dataclass(frozen=True)
class Noting:
    """Takes what ``TrainingEvaluator`` takes; what it trains costs its share of 1 J.

    None of the first trials ends before so many train ``abreast``.
    """

    config: object = None
    inputs: object = None
    lock_folder: object = None
    teacher: object = None
    energy_share: Callable[[], float] = field(default=lambda: 1.0)
    abreast: int = 1

    def evaluate(self, candidate, folder, measure, tell=None):
        note(folder / "trained", f"{node()},{os.environ.get('CUDA_VISIBLE_DEVICES', '')}")
        wait_for(lambda: len(list(folder.parent.glob("*/trained"))) >= self.abreast)
        time.sleep(0.1)
        record = measure(candidate.architecture, WORKLOAD, folder / "weights", folder / "inputs")
        return changed(
            finished(candidate),
            reading=record.reading,
            train_energy_j=self.energy_share(),
            measure_energy_j=record.spent_energy_j,
        ).outcome
