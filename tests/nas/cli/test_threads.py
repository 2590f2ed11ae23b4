"""How many threads the command's own matrices take."""

import os
import subprocess
import sys

import pytest

_SHOW_THREADS = """
from nas.cli.main import main
import scipy.linalg, threadpoolctl
print({pool["num_threads"] for pool in threadpoolctl.threadpool_info()})
"""


@pytest.mark.parametrize(("asked", "threads"), [(None, "{1}"), ("2", "{2}")])
def test_small_matrices_take_one_thread_unless_the_user_says_otherwise(asked, threads):
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    if asked is not None:
        environment["OPENBLAS_NUM_THREADS"] = asked
    shown = subprocess.run(
        [sys.executable, "-c", _SHOW_THREADS], env=environment, capture_output=True, text=True
    )
    assert shown.stdout.strip() == threads, shown.stderr
