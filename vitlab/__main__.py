"""`python -m vitlab`: the command line without its installed name."""

import sys

from vitlab.cli import main

sys.exit(main())
