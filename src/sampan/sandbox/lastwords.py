"""What a process says that fails as nobody foresaw: a line like the daemon's, and where it was.

It goes to standard error, which is the zygote's log. What is foreseen is answered to the daemon instead, and
logged there under the request.
"""

from __future__ import annotations

import json
import os
import sys
import time

_STDERR = 2


def say(who: str, keeping: bytes = b"") -> None:
    """Tell of the exception that is being handled. ``keeping``: the request that was served, as it came."""
    error = sys.exc_info()[1]
    now = time.time()
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"
    words = [f'time="{stamp}"', "level=error", f"msg={json.dumps(f'{type(error).__name__}: {error}')}"]
    words.append(f"module=sandbox.{who}")
    try:
        document = json.loads(keeping[1:])
        words += [f"{key}={document[key]}" for key in ("id", "op", "request") if document.get(key)]
    except (ValueError, AttributeError):  # it may be what it failed of
        pass
    os.write(_STDERR, (" ".join(words) + "\n").encode())
    sys.excepthook(*sys.exc_info())
