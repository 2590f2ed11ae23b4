"""``python -m nas`` is ``nas``."""

import sys

from nas.cli.main import main

sys.exit(main())
