"""`python -m jaxnn` is the command `jaxnn`."""

import sys

from jaxnn.cli import main

sys.exit(main())
