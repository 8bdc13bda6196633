"""runc's command line."""

from __future__ import annotations

import pytest

from sampan.oci import arguments
from sampan.oci.failure import Failed


@pytest.mark.parametrize(
    ("words", "given", "rest"),
    [
        (["--root", "/r", "state", "--x"], {"root": "/r"}, ["state", "--x"]),
        (["--root=/r", "-log=/l", "kill"], {"root": "/r", "log": "/l"}, ["kill"]),
        (["--debug", "--systemd-cgroup=false", "list"], {"debug": True, "systemd-cgroup": False}, ["list"]),
        (["-v"], {"version": True}, []),
    ],
)
def test_global_flags_end_at_the_command(words: list[str], given: dict[str, object], rest: list[str]) -> None:
    assert arguments.parse(words, arguments.GLOBAL, stop=True) == (given, rest)


@pytest.mark.parametrize(
    ("command", "words", "given", "rest"),
    [
        ("create", ["--bundle", "/b", "--pid-file=/p", "id"], {"bundle": "/b", "pid-file": "/p"}, ["id"]),
        ("create", ["id", "-b", "/b"], {"bundle": "/b"}, ["id"]),
        ("kill", ["--all", "id", "9"], {"all": True}, ["id", "9"]),
        ("delete", ["-f", "id"], {"force": True}, ["id"]),
        ("list", ["-f", "json"], {"format": "json"}, []),
        ("exec", ["-t", "-e", "A=1", "-e", "B=2", "id", "ls", "-l"],
         {"tty": True, "env": ["A=1", "B=2"]}, ["id", "ls", "-l"]),
        ("exec", ["--process", "/f", "--detach", "id"], {"process": "/f", "detach": True}, ["id"]),
        ("exec", ["id", "--", "ls"], {}, ["id", "--", "ls"]),
    ],
)  # fmt: skip
def test_flags_of_commands(command: str, words: list[str], given: dict[str, object], rest: list[str]) -> None:
    flags, _, _, stop = arguments.COMMANDS[command]
    assert arguments.parse(words, flags, stop=stop) == (given, rest)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nope"], "flag provided but not defined: -nope"),
        (["--root"], "flag needs an argument: -root"),
    ],
)
def test_flags_that_are_wrong(words: list[str], said: str) -> None:
    with pytest.raises(Failed, match=said):
        arguments.parse(words, arguments.GLOBAL, stop=True)


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("state", [], "exactly 1"),
        ("kill", [], "a minimum of 1"),
        ("kill", ["a", "b", "c"], "a maximum of 2"),
        ("exec", [], "a minimum of 1"),
    ],
)
def test_counts_of_arguments(command: str, words: list[str], said: str) -> None:
    with pytest.raises(Failed, match=f'"sampan oci {command}" requires {said}'):
        arguments.check_count(command, words)
