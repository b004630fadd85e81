"""``python -m voxfast`` is the command ``voxfast``."""

import sys

from voxfast.cli import main

if __name__ == "__main__":
    sys.exit(main())
