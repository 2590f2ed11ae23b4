"""For every test: one thread for small matrices, the path to ``fakes``, how hypothesis runs."""

import os
import sys
from pathlib import Path

# Before numpy: with more, threads of small products wait for each other, and tests take twice as
# long, on a busy machine four times.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))

# Examples are judged by what they show; on a busy machine any of them may be slow.
hypothesis.settings.register_profile("joulenas", deadline=None)
hypothesis.settings.load_profile("joulenas")
