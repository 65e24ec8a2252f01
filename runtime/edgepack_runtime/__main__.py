"""`python -m edgepack_runtime`."""

import sys

from edgepack_runtime.cli import main

sys.exit(main())
