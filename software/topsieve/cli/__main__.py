"""`python -m topsieve.cli`."""

import sys

from topsieve.cli.main import main

sys.exit(main())
