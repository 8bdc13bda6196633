"""asyncio without TLS, until somebody needs TLS.

asyncio imports ``ssl``, which with OpenSSL's tables is 4 of the 31 MB of an idle daemon and a hundredth of a
second of its start; few engines ever use it. ``ssl`` is an optional part of Python, so asyncio works without.

Laws: ``asyncio_without_tls`` is called before anything imports asyncio; who is about to give asyncio a
context for TLS calls ``asyncio_with_tls`` first; modules that every daemon loads import ``ssl`` where they
use it.
"""

from __future__ import annotations

import importlib
import sys


def asyncio_without_tls() -> None:
    """Import asyncio as on a Python that has no ``ssl``. Nothing happens where either is there already."""
    if "ssl" in sys.modules or "asyncio" in sys.modules:
        return
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]  # None: "it cannot be imported"
    modules["ssl"] = None
    try:
        importlib.import_module("asyncio")
    finally:
        del modules["ssl"]


def asyncio_with_tls() -> None:
    """Let asyncio have what it was imported without."""
    ssl = importlib.import_module("ssl")
    protocol = importlib.import_module("asyncio.sslproto")
    if vars(protocol)["ssl"] is None:
        for name in ("asyncio.base_events", "asyncio.selector_events"):
            vars(importlib.import_module(name))["ssl"] = ssl
        importlib.reload(protocol)
