"""``python -m sampan.daemon``: serve the Engine API."""

import sys

from sampan.deferred import asyncio_without_tls

if __name__ == "__main__":
    asyncio_without_tls()
    from sampan.daemon.main import main

    sys.exit(main(sys.argv[1:]))
