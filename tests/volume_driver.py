"""A small volume driver by Docker's plugin protocol: volumes are directories, their mounts are counted."""

from __future__ import annotations

import contextlib
import json
import os
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


class VolumeDriver:
    """``calls`` are the methods in the order they were asked for; ``mounts`` the ids that hold a volume.

    ``hangs``: methods that get no answer before the driver is closed.
    """

    def __init__(self, socket: Path, root: Path) -> None:
        self.root = root
        self.volumes: dict[str, dict[str, str]] = {}
        self.mounts: dict[str, set[str]] = {}
        self.calls: list[str] = []
        self.hangs: set[str] = set()
        self.implements = ["VolumeDriver"]
        self.closing = threading.Event()
        driver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                method = self.path.strip("/").rpartition(".")[2]
                driver.calls.append(method)
                if method in driver.hangs:
                    driver.closing.wait()
                    return
                answer = driver.answer(method, json.loads(body or b"{}"))
                data = json.dumps(answer).encode()
                self.send_response(404 if answer.get("Err") == "unknown" else 200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                return

            def address_string(self) -> str:
                return "engine"

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            block_on_close = False

        socket.parent.mkdir(parents=True, exist_ok=True)
        self.socket = socket
        self._server = Server(os.fspath(socket), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def answer(self, method: str, asked: dict[str, Any]) -> dict[str, Any]:
        if method == "Activate":
            return {"Implements": self.implements}
        if method == "Capabilities":
            return {"Capabilities": {"Scope": "global"}}
        if method == "List":
            return {"Volumes": [self._volume(name) for name in self.volumes], "Err": ""}
        name = asked.get("Name", "")
        if method == "Create":
            if (asked.get("Opts") or {}).get("bad"):
                return {"Err": "bad option"}
            self.volumes[name] = asked.get("Opts") or {}
            (self.root / name).mkdir(parents=True, exist_ok=True)
            return {"Err": ""}
        if name not in self.volumes:
            return {"Err": "no such volume"}
        holders = self.mounts.setdefault(name, set())
        if method == "Remove":
            del self.volumes[name]
        elif method == "Mount":
            holders.add(asked["ID"])
            return {"Mountpoint": os.fspath(self.root / name), "Err": ""}
        elif method == "Unmount":
            holders.discard(asked["ID"])
        elif method == "Path":
            return {"Mountpoint": os.fspath(self.root / name), "Err": ""}
        elif method == "Get":
            return {"Volume": self._volume(name), "Err": ""}
        else:
            return {"Err": "unknown"}
        return {"Err": ""}

    def _volume(self, name: str) -> dict[str, Any]:
        return {"Name": name, "Mountpoint": os.fspath(self.root / name), "Status": {"kept": "well"}}

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()


@contextlib.contextmanager
def serving(socket: Path, root: Path) -> Iterator[VolumeDriver]:
    driver = VolumeDriver(socket, root)
    try:
        yield driver
    finally:
        driver.close()
