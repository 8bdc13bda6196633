"""``python -m sampan``: the command line."""

import sys

from sampan.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
