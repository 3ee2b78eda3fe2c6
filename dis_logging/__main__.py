"""Lets ``python -m dis_logging`` do what the command ``dis-logging`` does."""

import sys

from dis_logging.cli import main

if __name__ == "__main__":
    sys.exit(main())
