"""One engine in a root of its own: started, killed, asked. An answer is told whole, or it is none."""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos import processes

PATIENCE = 60.0
"""Seconds after which what has not come never will."""
_ON_DEMAND = (
    "import sys; from sampan.cli.ondemand import start; sys.exit(not start(sys.argv[1], tuple(sys.argv[2:])))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """``status`` 0: the connection ended before the answer did; -1: nobody took the question."""

    status: int
    body: bytes = b""

    @property
    def told(self) -> bool:
        return self.status > 0

    def json(self) -> Any:
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        """The documents of a stream of them."""
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]


class Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


class Engine:
    """``root`` is a short path; ``options`` go to every daemon."""

    def __init__(self, root: str, *options: str) -> None:
        self.root = root
        self.data, self.run = f"{root}/data", f"{root}/run"
        self.socket = f"{root}/run/sampan.sock"
        self.pid = 0
        self.starts = 0
        self._options = options
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    @property
    def own(self) -> set[int]:
        """Children that are waited for here."""
        return {self._child.pid} if self._child is not None else set()

    def _arguments(self) -> list[str]:
        return ["-H", self.host, "--data-root", self.data, "--exec-root", self.run, *self._options]

    def begin(self) -> None:
        """Start a daemon, and do not wait for it."""
        self.starts += 1
        with open(f"{self.root}/log", "ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "sampan.daemon", *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._child.pid

    def start(self, *, on_demand: bool = False) -> None:
        """Start a daemon, ourselves or as the first command of a user does; returns once it serves."""
        if on_demand:
            self.starts += 1
            done = subprocess.run(
                [sys.executable, "-c", _ON_DEMAND, self.host, *self._arguments()],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            assert done.returncode == 0, f"no engine on demand: {done.stderr} {self.words()}"
            (self.pid,) = [one.pid for one in processes.of_engine(self.run) if one.kind == "daemon"]
            return
        if not self.pid:
            self.begin()
        deadline = time.monotonic() + PATIENCE
        while self.ask("GET", "/_ping").status != 200:
            assert self._child is None or self._child.poll() is None, self.words()
            assert time.monotonic() < deadline, f"it does not serve: {self.words()}"
            select.select((), (), (), 0.01)

    def kill(self) -> None:
        """SIGKILL to the daemon; returns when it is dead."""
        processes.end(self.pid)
        if self._child is not None:
            self._child.wait()
        self._child, self.pid = None, 0

    def stop(self) -> None:
        """As on any other day."""
        handle = os.pidfd_open(self.pid)
        os.kill(self.pid, 15)
        assert select.select([handle], [], [], PATIENCE)[0], f"it does not stop: {self.words()}"
        os.close(handle)
        if self._child is not None:
            assert self._child.wait() == 0, self.words()
        self._child, self.pid = None, 0

    def words(self) -> str:
        """The end of what the daemons have said."""
        return "".join(Path(path).read_text()[-3000:] for path in self.logs())

    def logs(self) -> list[str]:
        names = (f"{self.root}/log", f"{self.run}/daemon.log", f"{self.data}/zygote.log")
        return [name for name in names if os.path.exists(name)]

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Answer:
        """``body``: bytes as they are, everything else as JSON."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        connection = Connection(self.socket)
        try:
            try:
                connection.connect()
            except OSError:
                return Answer(status=-1)
            headers = {"Content-Type": kind} if data is not None else {}
            # An engine that refuses early does not read the rest of the question.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, data, headers)
            answer = connection.getresponse()
            return Answer(status=answer.status, body=answer.read())
        except TimeoutError:
            raise AssertionError(f"{method} {path}: no answer and no end in {PATIENCE:.0f} seconds") from None
        except (http.client.HTTPException, OSError):
            return Answer(status=0)
        finally:
            connection.close()

    def stream(self, path: str, seconds: float) -> bytes:
        """What an endless answer tells in some time, or until it ends."""
        connection = Connection(self.socket)
        told = b""
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200, (path, answer.read())
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                assert connection.sock is not None
                connection.sock.settimeout(left)
                if not (data := answer.read1(65536)):
                    break
                told += data
        connection.close()
        return told

    def command(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """A command of ``sampan``."""
        environment = {**os.environ, "SAMPAN_HOST": self.host, "DOCKER_CONFIG": f"{self.root}/none"}
        return subprocess.run(
            [sys.executable, "-m", "sampan", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=PATIENCE * 2,
            check=False,
        )
