"""The completion scripts in real shells at a real terminal: a line is typed, Tab is pressed, the line is
printed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.packages import program
from tests.e2e.serving import Daemon
from tests.e2e.terminal import Terminal

pytestmark = [pytest.mark.root, pytest.mark.e2e]

SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], "source <(sampan completion bash)"),
    "zsh": (["-f", "-i"], "autoload -U compinit && compinit -u -D && source <(sampan completion zsh)"),
    "fish": (["--no-config", "-i"], "sampan completion fish | source"),
}

LINES = {
    "sampan conte": "<sampan><context>",
    "sampan container renam": "<sampan><container><rename>",
    "sampan run --netw": None,  # --network and --network-alias: nothing to choose
    "sampan run --network-a": "<sampan><run><--network-alias>",
    "sampan run --network br": "<sampan><run><--network><bridge>",
    "sampan run --network=br": "<sampan><run><--network=bridge>",
    "sampan ps --filter status=exi": "<sampan><ps><--filter><status=exited>",
    "sampan run busybox:la": "<sampan><run><busybox:latest>",
    "sampan logs completed-": "<sampan><logs><completed-box>",
    "sampan cp completed-": "<sampan><cp><completed-box:>",
    "sampan volume rm completed-": "<sampan><volume><rm><completed-volume>",
    "sampan --context=comp": "<sampan><--context=completed>",
    "sampan context use comp": "<sampan><context><use><completed>",
    "sampan import completed-f": "<sampan><import><completed-file>",
}


@pytest.fixture(scope="module")
def place(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment with ``sampan``, and one of everything that has a name."""
    home = tmp_path_factory.mktemp("completion")
    (home / "completed-file").write_text("")
    (home / "bin").mkdir()
    wrapper = home / "bin" / "sampan"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -m sampan "$@"\n')
    wrapper.chmod(0o755)
    environment = {
        "HOME": str(home),
        "PATH": f"{home}/bin:{os.environ['PATH']}",
        "SAMPAN_HOST": daemon.host,
        "TERM": "dumb",
        "XDG_DATA_HOME": str(home),
    }

    def sampan(*arguments: str) -> None:
        subprocess.run(
            ["sampan", *arguments], env=environment, check=True, capture_output=True, executable=wrapper
        )

    sampan("create", "--name", "completed-box", "busybox")
    sampan("volume", "create", "completed-volume")
    sampan("context", "create", "completed", "--docker", f"host={daemon.host}")
    yield environment
    sampan("rm", "completed-box")
    sampan("volume", "rm", "completed-volume")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_line_is_completed(place: dict[str, str], shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place["HOME"])
    arguments, setup = SHELLS[shell]
    wrong = []
    with Terminal([program(shell), *arguments], environment=place) as terminal:
        terminal.size(24, 200)
        terminal.type(f"{setup} && printf '<%s>' loa''ded\n".encode())
        terminal.expect(b"<loaded>")
        for line, wanted in LINES.items():
            # Ctrl-A and Ctrl-E: to the ends of the line, which becomes the arguments of printf
            terminal.type(f"{line}\t".encode() + b"\x01printf '<%s>' \x05 en''d\n")
            said = terminal.expect(b"<end>").decode(errors="replace")
            if wanted is not None and wanted not in said:
                wrong.append((line, said))
    assert wrong == []


def test_without_an_engine_there_is_silence(tmp_path: Path, complete: Callable[..., list[str]]) -> None:
    nowhere = f"unix://{tmp_path}/nowhere.sock"
    assert complete("-H", nowhere, "logs", "") == [":4"]
    assert complete("--context", "nowhere", "logs", "") == [":4"]
    assert not (tmp_path / "nowhere.sock").exists()


def test_nothing_is_started(tmp_path: Path, complete: Callable[..., list[str]]) -> None:
    assert complete("logs", "", host="unix:///run/sampan/sampan.sock")[-1] == ":4"


@pytest.fixture
def complete(tmp_path: Path) -> Callable[..., list[str]]:
    """Run ``sampan __complete`` with words; the lines that it prints. Nothing else may be said."""

    def run(*words: str, host: str = "") -> list[str]:
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        if host:
            environment["DOCKER_HOST"] = host
        command = [sys.executable, "-m", "sampan", "__complete", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == "Completion ended with directive: ShellCompDirectiveNoFileComp\n"
        return done.stdout.splitlines()

    return run
