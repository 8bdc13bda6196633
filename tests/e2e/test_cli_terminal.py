"""``sampan`` at a real terminal: keys, signals, sizes, and the terminal put back."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from tests.e2e.conftest import PROGRAMS
from tests.e2e.terminal import Terminal

pytestmark = pytest.mark.e2e

Open: TypeAlias = Callable[..., Terminal]

LOOP = "echo ready; while :; do sleep 0.1; done"


@pytest.fixture
def sampan(environment: dict[str, str]) -> Open:
    """Run ``sampan`` with arguments on a terminal."""
    return lambda *arguments: Terminal([*PROGRAMS["sampan"], *arguments], environment=environment)


@pytest.fixture
def box(environment: dict[str, str], image: str) -> Iterator[str]:
    """A container whose shell waits at a terminal."""
    name = "parity-terminal"
    subprocess.run(
        ["docker", "run", "-dit", "--name", name, image, "sh"],
        env=environment,
        check=True,
        capture_output=True,
    )
    yield name
    subprocess.run(["docker", "rm", "-f", name], env=environment, check=False, capture_output=True)


def test_a_shell_by_run(sampan: Open, image: str) -> None:
    with sampan("run", "-it", "--rm", image, "sh") as terminal:
        terminal.expect(b"# ")
        assert terminal.is_raw()
        terminal.type(b"stty size; export hello=hi; echo $hello$((1+1))\n")
        assert b"24 80" in terminal.expect(b"hi2")
        terminal.expect(b"# ")  # before it the terminal is not the line editor's, and the end gets lost
        terminal.type(b"\x04")  # Ctrl-D
        assert terminal.end() == 0


def test_the_terminal_is_put_back(environment: dict[str, str], image: str) -> None:
    program = " ".join(PROGRAMS["sampan"])
    script = f"{program} run -it --rm {image} true; stty -a; echo end"
    with Terminal(["sh", "-c", script], environment=environment) as terminal:
        settings = terminal.expect(b"end")
        assert terminal.end() == 0
    assert {b"icanon", b"echo", b"opost"} < set(settings.split())


def test_control_c_reaches_the_container(sampan: Open, image: str) -> None:
    with sampan("run", "-it", "--rm", image, "sh", "-c", f"trap 'exit 5' INT; {LOOP}") as terminal:
        terminal.expect(b"ready")
        terminal.type(b"\x03")
        assert terminal.end() == 5


@pytest.mark.parametrize("flags", [(), ("-t",)])
def test_signals_are_passed_on(flags: tuple[str, ...], sampan: Open, image: str) -> None:
    with sampan(
        "run", *flags, "--rm", image, "sh", "-c", f"trap 'echo got; exit 5' TERM; {LOOP}"
    ) as terminal:
        terminal.expect(b"ready")
        terminal.signal(signal.SIGTERM)
        terminal.expect(b"got")
        assert terminal.end() == 5


def test_control_c_without_a_terminal_is_passed_on_too(sampan: Open, image: str) -> None:
    with sampan("run", "--rm", image, "sh", "-c", f"trap 'echo got; exit 6' INT; {LOOP}") as terminal:
        terminal.expect(b"ready")
        terminal.type(b"\x03")
        terminal.expect(b"got")
        assert terminal.end() == 6


def test_a_new_size_reaches_the_container(sampan: Open, image: str) -> None:
    script = "trap 'stty size' WINCH; echo ready; while [ \"$x\" != q ]; do read x; done"
    with sampan("run", "-it", "--rm", image, "sh", "-c", script) as terminal:
        terminal.expect(b"ready")
        terminal.size(33, 99)
        terminal.expect(b"33 99")
        terminal.type(b"q\n")
        assert terminal.end() == 0


def test_exec_at_a_terminal(sampan: Open, box: str) -> None:
    with sampan("exec", "-it", box, "sh") as terminal:
        terminal.expect(b"# ")
        terminal.type(b"stty size; exit 9\n")
        terminal.expect(b"24 80")
        assert terminal.end() == 9


def test_attach_draws_again_and_detaches(sampan: Open, box: str) -> None:
    for keys in ((), ("--detach-keys", "a,b")):
        with sampan("attach", *keys, box) as terminal:
            terminal.expect(b"# ")
            terminal.type(b"ab" if keys else b"\x10\x11")
            terminal.expect(b"read escape sequence")
            assert terminal.end() == 1
    with sampan("attach", box) as terminal:
        terminal.expect(b"# ")
        terminal.type(b"exit 4\n")
        assert terminal.end() == 4
    with sampan("start", "-ai", box) as terminal:
        terminal.expect(b"# ")
        terminal.type(b"exit 3\n")
        assert terminal.end() == 3


def test_run_detached_by_keys_leaves_the_container(
    sampan: Open, environment: dict[str, str], image: str
) -> None:
    name = "parity-detached"
    try:
        with sampan("run", "-it", "--name", name, "--detach-keys", "ctrl-a", image, "sh") as terminal:
            terminal.expect(b"# ")
            terminal.type(b"\x01")
            assert terminal.end() == 0
        state = subprocess.run(
            ["docker", "inspect", "-f", "{{.State.Status}}", name],
            env=environment,
            capture_output=True,
            check=True,
        )
        assert state.stdout == b"running\n"
    finally:
        subprocess.run(["docker", "rm", "-f", name], env=environment, check=False, capture_output=True)
