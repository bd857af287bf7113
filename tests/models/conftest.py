"""The tests of a folder share the models of `tiny`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # for `tiny`
