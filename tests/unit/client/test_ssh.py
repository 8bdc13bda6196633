"""Addresses that SSH is asked for."""

from __future__ import annotations

import pytest

from sampan.client.connection import Address
from sampan.client.ssh import command
from sampan.errors import Failure

REMOTE = "sh -c 'exec $(command -v docker || echo sampan){} system dial-stdio'"


@pytest.mark.parametrize(
    ("text", "words", "more"),
    [
        ("ssh://host", [], ""),
        ("ssh://me@host", ["-l", "me"], ""),
        ("ssh://me@host:22", ["-l", "me", "-p", "22"], ""),
        ("ssh://host/run/x.sock", [], " --host unix:///run/x.sock"),
        ("ssh://host/", [], ""),
    ],
)
def test_command(text: str, words: list[str], more: str) -> None:
    options = ["ssh", "-o", "ConnectTimeout=30", "-T", *words, "--"]
    assert command(text) == [*options, "host", REMOTE.format(more)]


def test_an_address_of_numbers() -> None:
    assert command("ssh://[::1]:22")[4:8] == ["-p", "22", "--", "::1"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ssh://", "hostname is empty"),
        ("ssh://me:secret@host", "plain-text password is not supported"),
        ("ssh://host?x=1", 'query parameters are not allowed: "x=1"'),
        ("ssh://host:port", '"ssh://host:port"'),
        ("ssh://host/a'b", '"ssh://host/a\'b"'),
        ("ssh://host/$(reboot)", '"ssh://host/$(reboot)"'),
        ("ssh://@host", '"ssh://@host"'),
    ],
)
def test_refusal(text: str, reason: str) -> None:
    with pytest.raises(Failure) as refused:
        Address(text)
    assert str(refused.value) == f"ssh host connection is not valid: invalid SSH URL: {reason}"
