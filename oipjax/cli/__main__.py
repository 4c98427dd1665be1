"""``python -m oipjax.cli``."""

import sys

from oipjax.cli.main import run

sys.exit(run())
