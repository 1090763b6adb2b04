"""`python -m tunewright` is the `tunewright` command."""

from __future__ import annotations

import sys

from tunewright.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
