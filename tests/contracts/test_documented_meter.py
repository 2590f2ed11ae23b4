"""The test that docs/meters.md shows: the meter of that page under the contract, as written."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent
PAGE = (FOLDER.parents[1] / "docs" / "meters.md").read_text()
METER, SUITE = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def load():
    """The names of the suite, with the meter in a package as the page has it."""
    package, names = ModuleType("my_package"), {}
    exec(compile(METER, "docs/meters.md", "exec"), package.__dict__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "my_package", package)
        patch.syspath_prepend(FOLDER)
        exec(compile(SUITE, "docs/meters.md", "exec"), names)
    return names


SHOWN = load()
assert sum(name.startswith("test_") for name in SHOWN) >= 6
# Of the page's ``bench``, not the contract's own.
globals().update({name: SHOWN[name] for name in SHOWN if name.startswith("test_")})
bench = SHOWN["bench"]
