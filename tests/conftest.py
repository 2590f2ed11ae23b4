"""For every test: the path to ``fakes``, and how hypothesis runs."""

import sys
from pathlib import Path

import hypothesis

sys.path.insert(0, str(Path(__file__).parent))

# Examples are judged by what they show; on a busy machine any of them may be slow.
hypothesis.settings.register_profile("joulenas", deadline=None)
hypothesis.settings.load_profile("joulenas")
