"""A signal after networks ran in OpenVINO reaches its handler."""

import subprocess
import sys

import pytest

from search_spaces.runtimes.registry import RUNTIMES

# Networks that live beside each other, of which the first ends first. In a process of its own,
# which a stack of signals that is no more would end.
SERVED = """
import gc, os, signal, sys, time
import numpy as np
import openvino
from openvino import opset13 as ops
from pathlib import Path
from search_spaces.runtimes.serve import load

path = Path(sys.argv[1]) / "model.xml"
given = ops.parameter([1, 8], np.float32)
product = ops.matmul(given, ops.constant(np.ones((8, 8), np.float32)), False, False)
openvino.save_model(openvino.Model([product], [given]), path)
inputs = [np.ones((1, 8), np.float32)]
first, second = load("openvino", path), load("openvino", path)
for served in (first, second):
    assert served.call(inputs)[0].sum() == 64
served = None
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled", flush=True))
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(0.1)
"""


@pytest.mark.skipif(RUNTIMES["openvino"].missing() is not None, reason="OpenVINO is not installed")
def test_a_signal_is_handled_after_networks_ran_in_openvino(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SERVED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "handled\n", "")
