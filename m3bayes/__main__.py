"""``python -m m3bayes``."""

import sys

from m3bayes.cli import main

if __name__ == "__main__":
    sys.exit(main())
