"""`python -m gristmill`."""

import sys

from gristmill.recipes.commands import main

sys.exit(main())
