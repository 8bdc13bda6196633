"""The real docker CLI against the server: it hijacks, sends early, half-closes, and reads frames."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.fakes.api import NAME, FakeEngine, FakeExecs, Serve

from sampan.api.request import ClientStream
from sampan.engine.model import Exec, ExecConfig
from sampan.wire import stdcopy

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="the docker CLI is not installed")


class EchoingExecs(FakeExecs):
    """`wc -c` and `cat` in one: echoes what it reads, tells its size on stderr, exits with 4."""

    async def start(
        self,
        exec_id: str,
        *,
        detach: bool,
        tty: bool,
        console_size: tuple[int, int] | None,
        take: Callable[[], ClientStream] | None,
    ) -> None:
        assert take is not None
        threading.Thread(target=_echo, args=take().detach(), daemon=True).start()

    def inspect(self, exec_id: str) -> Exec:
        return Exec(id=exec_id, container_id="c", config=ExecConfig(cmd=("cat",)), exit_code=4)


def _echo(sock: socket.socket, early: bytes) -> None:
    with sock:
        data = early
        while piece := sock.recv(1 << 20):
            data += piece
        for start in range(0, len(data), 65536):
            sock.sendall(stdcopy.frame(stdcopy.STDOUT, data[start : start + 65536]))
        sock.sendall(stdcopy.frame(stdcopy.STDERR, b"%d bytes\n" % len(data)))


def docker(path: str, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command: list[Any] = ["docker", "--host", f"unix://{path}", *arguments]
    return subprocess.run(command, input=given, capture_output=True, timeout=30, check=False)


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_exec_with_input(serve: Serve, size: int) -> None:
    given = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    done = docker(serve(FakeEngine(execs=EchoingExecs())).path, "exec", "-i", NAME, "cat", given=given)
    assert (done.returncode, done.stderr) == (4, b"%d bytes\n" % size)
    assert done.stdout == given


def test_what_the_cli_shows(serve: Serve) -> None:
    path = serve(FakeEngine()).path
    assert docker(path, "version", "--format", "{{.Server.APIVersion}}").stdout == b"1.56\n"
    assert (
        docker(path, "ps", "-a", "--format", "{{.Names}} {{.Status}}").stdout == f"{NAME} Created\n".encode()
    )
    refused = docker(path, "start", "nope")
    assert refused.returncode == 1
    assert refused.stderr.startswith(b"Error response from daemon: No such container: nope")
