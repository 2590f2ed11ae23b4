"""A meter whose joules are calls of torch modules: what is measured twice agrees exactly.

Windows, repeats and processes are real. Networks must run op by op: what is compiled calls none.
"""

from pathlib import Path

from predictors.meters.estimate import EstimateMeter

NAME = "counted"
JOULES_PER_CALL = 1e-4
_calls = [0]
_hooks = []


class CountingMeter(EstimateMeter):
    """Counts the calls of this process."""

    name = NAME

    def __init__(self):
        super().__init__(JOULES_PER_CALL, cpu_clock=_count)
        self.source = "calls of modules"


def make_meter(device):
    from torch.nn.modules.module import register_module_forward_pre_hook

    if not _hooks:
        _hooks.append(register_module_forward_pre_hook(_call))
    return CountingMeter()


def stop_counting():
    """Take the hook out of this process, where torch would compile other graphs with it."""
    while _hooks:
        _hooks.pop().remove()


def register(folder):
    """Put a package into ``folder`` that registers the meter, as one of a user's own would."""
    info = Path(folder) / "counting_meter-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counting-meter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[joulenas.meters]\n{NAME} = counting_meter:make_meter\n"
    )


def _call(module, inputs):
    _calls[0] += 1


def _count():
    return float(_calls[0])
