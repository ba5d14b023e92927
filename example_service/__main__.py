"""Run the command line: `python -m example_service`."""

import sys

from example_service.cli import main

# Worker processes import this module under another name.
if __name__ == "__main__":
    sys.exit(main())
