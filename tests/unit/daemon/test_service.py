from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sampan.daemon.service import Service
from sampan.errors import InvalidArgument


def test_without_systemd_nothing_is_passed_and_nobody_is_told() -> None:
    service = Service.take({"PATH": "/bin"})
    assert service.sockets == ()
    service.ready()
    with pytest.raises(InvalidArgument, match="no sockets found via socket activation for fd://"):
        service.listeners("fd://")


def test_what_is_meant_for_another_process_is_not_taken() -> None:
    environment = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1", "NOTIFY_SOCKET": "/x", "HOME": "/"}
    service = Service.take(environment)
    assert service.sockets == ()
    assert environment == {"HOME": "/"}


def test_the_manager_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        service = Service.take({"NOTIFY_SOCKET": path})
        service.ready()
        service.reloading()
        service.stopping()
        said = [manager.recv(4096).decode() for _ in range(3)]
    assert said[0] == f"READY=1\nMAINPID={os.getpid()}"
    assert said[1].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert said[2] == "STOPPING=1"


def test_a_manager_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    Service.take({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


def test_only_listening_sockets_are_served() -> None:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as idle:
        listening.bind("")
        listening.listen()
        service = Service(sockets=(listening.fileno(), idle.fileno()), notify="")
        (found,) = service.listeners(f"fd://{listening.fileno()}")
        assert found.getsockname() == listening.getsockname()
        found.close()
        with pytest.raises(InvalidArgument, match="is not a listening socket"):
            service.listeners("fd://")
