"""``python -m sampan.daemon``: serve the Engine API."""

import sys

from sampan.daemon.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
