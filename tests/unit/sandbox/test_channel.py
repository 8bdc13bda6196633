from __future__ import annotations

import os
import socket

from hypothesis import given
from hypothesis import strategies as st

from sampan.sandbox import channel


@given(
    st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5), st.sampled_from([0, 200_000])
)
def test_documents_arrive_whole_whatever_their_size(document: object, padding: int) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        channel.send(left, {"d": document, "p": "x" * padding})
        received = channel.receive(right)
    assert received == ({"d": document, "p": "x" * padding}, [])


def test_descriptors_travel_with_the_message_and_are_not_inherited() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read, write = os.pipe()
    with left, right:
        channel.send(left, "x" * 100_000, [write])
        received = channel.receive(right)
    assert received is not None
    _, (copy,) = received
    assert not os.get_inheritable(copy)
    os.write(copy, b"!")
    assert os.read(read, 1) == b"!"
    for fd in (read, write, copy):
        os.close(fd)


def test_the_end_is_none() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left.close()
    with right:
        assert channel.receive(right) is None


def test_the_last_words_of_a_peer_that_did_not_listen_are_heard() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with right:
        channel.send(right, "never read")
        channel.send(left, "farewell")
        left.close()
        assert channel.receive(right) == ("farewell", [])
        assert channel.receive(right) is None
