"""A seed that dies costs nothing: the zygote orders its keeper from the next."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from sampan.sandbox.zygote import Zygote


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _die(orders: socket.socket, *, taken: bool) -> None:
    """End with an order that was taken, or that still lies there: the kernel tells the two apart."""
    with orders:
        orders.recv(1, 0 if taken else socket.MSG_PEEK)


def _answer(orders: socket.socket) -> None:
    with orders:
        orders.recv(1)
        orders.send(b"4711")


@pytest.mark.parametrize("taken", [True, False])
def test_an_order_that_dies_with_its_seed_is_given_to_the_next(tmp_path: Path, taken: bool) -> None:
    class Planting(Zygote):
        def _plant(self) -> socket.socket:
            ours, theirs = _pair()
            threading.Thread(target=_answer, args=(theirs,)).start()
            return ours

    (tmp_path / "zygote.sock").touch()
    zygote = Planting(_pair()[0], str(tmp_path / "zygote.sock"), "")
    zygote._seed, dying = _pair()
    threading.Thread(target=_die, args=(dying,), kwargs={"taken": taken}).start()
    pid, job = zygote._fork()
    job.close()
    assert pid == 4711
