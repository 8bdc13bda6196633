"""``python -m sampan.daemon``: serve the Engine API."""

import sys

from sampan.daemon.ending import Ending

if __name__ == "__main__":
    ending = Ending()
    from sampan.deferred import asyncio_without_tls

    asyncio_without_tls()
    from sampan.daemon.main import main

    sys.exit(main(sys.argv[1:], ending))
