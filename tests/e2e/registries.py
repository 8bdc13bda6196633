"""Debian's docker-registry on loopback, for tests that need a real one."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SECONDS = 30


@contextlib.contextmanager
def serve(root: Path, scheme: str = "http", **settings: Mapping[str, Any]) -> Iterator[str]:
    """The address of an empty registry that keeps its things in ``root``.

    ``settings`` are further sections of its configuration.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    own = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(root / "data")}},
        "log": {"level": "error"},
    }
    http = {"addr": host, **settings.pop("http", {})}
    (root / "config.yml").write_text(json.dumps({**own, **settings, "http": http}))
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(root / "config.yml")], stdout=subprocess.DEVNULL, stderr=log
        )
    try:
        _await(f"{scheme}://{host}/v2/", process)
        yield host
    finally:
        process.terminate()
        process.wait()


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None
        try:
            urllib.request.urlopen(url, timeout=SECONDS, context=trusting).close()
        except urllib.error.HTTPError:
            return  # it wants to know who asks
        except OSError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        else:
            return
    raise AssertionError("the registry does not serve")
