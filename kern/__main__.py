"""Runs the `kern` command as `python -m kern`."""

import sys

from kern.cli import main

if __name__ == "__main__":
    sys.exit(main())
