"""`python -m warmpool`."""

import sys

from warmpool.cli import main

sys.exit(main())
