"""The table of commands is true: complete, up to date, and every flag that works does something."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.cli.index import GROUPS
from sampan.cli.main import GLOBAL_FLAGS
from sampan.cli.values import KINDS
from tests.commands import evidence, table

pytestmark = pytest.mark.skipif(
    not table.SOURCE.exists(), reason="the reference list of docker's flags is not here"
)

ROOT = Path(__file__).resolve().parents[2]

OURS = {
    "build": {
        *(
            "progress",
            "secret",
            "ssh",
            "output",
            "build-context",
            "push",
            "metadata-file",
            "check",
            "cache-to",
            "attest",
            "provenance",
        ),
        *("explain", "shell-on-failure", "allow"),
    },
    "create": {"egress", "restart-unhealthy", "timeout"},
    "run": {"egress", "restart-unhealthy", "timeout"},
    "network create": {"egress"},
}
"""Flags that Docker lacks."""


def _commands() -> Iterator[table.Row]:
    """Every command of ours once."""
    seen: set[str] = set()
    for row in table.rows():
        if row.ours and row.ours not in GROUPS and row.ours not in seen:
            seen.add(row.ours)
            yield row


COMMANDS = {row.ours: row for row in _commands()} if table.SOURCE.exists() else {}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[evidence.Bench]:
    for name in [name for name in os.environ if name.startswith("DOCKER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SAMPAN_HOST", "")
    monkeypatch.setattr("sampan.cli.stats._INTERVAL", 0.01)
    found = evidence.Bench(tmp_path)
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield found
    found.close()


def test_the_document_is_up_to_date() -> None:
    assert (ROOT / "docs" / "commands.md").read_text() == table.render(), "run tools/commands-table"


def test_nothing_is_missing() -> None:
    found = [row.words for row in table.rows() if row.state == "missing"]
    found += [
        f"{row.words} --{name}" for row in table.rows() for name in row.flags if row.flags[name] == "missing"
    ]
    assert found == []


def test_usage_aliases_letters_and_kinds_are_dockers() -> None:
    wrong = []
    for words, docker in table.reference().items():
        command = table.command_of(words) if words and words not in GROUPS else None
        if command is None:
            continue
        ours = {flag[1]: ((flag[0] or "-"), KINDS[flag[2]].shown) for flag in command.flags if flag[3]}
        theirs = {
            flag["long"][2:]: ((flag["short"] or "--")[1:], flag["value"] or "")
            for flag in docker["flags"]
            if flag["long"] != "--help"
        }
        if "gpus" in theirs:
            theirs["gpus"] = ("-", "gpu-request")  # the list lost what is after the dash
        extra = OURS.get(command.words, set())
        wrong += [f"{words} --{name}" for name in theirs if ours.get(name) != theirs[name]]
        wrong += [f"{words} --{name} is no flag of Docker's" for name in set(ours) - set(theirs) - extra]
        usage = f"docker {words} {command.usage}".rstrip().partition("\n")[0]
        if usage != docker["usage"]:
            wrong.append(f"{usage} is not {docker['usage']}")
        if [f"docker {alias}" for alias in command.aliases] != docker["aliases"]:
            wrong.append(f"{words}: aliases {command.aliases}")
    assert wrong == []


@pytest.mark.parametrize("words", COMMANDS)
def test_a_flag_that_works_has_an_effect(bench: evidence.Bench, words: str) -> None:
    command = table.command_of(COMMANDS[words].words)
    assert command is not None
    flags = [flag for flag in command.flags if COMMANDS[words].flags.get(flag[1]) == "works"]
    without = [
        name
        for name, before, after in evidence.effects(bench, words, iter(flags))
        if before == after and (words, name) not in evidence.ELSEWHERE
    ]
    assert without == []


@pytest.mark.parametrize(("words", "name"), [key for key in table.FLAGS if key[0] not in ("create", "run")])
def test_a_refused_flag_is_refused(bench: evidence.Bench, words: str, name: str) -> None:
    command = table.command_of(COMMANDS[words].words)
    assert command is not None
    flag = next(flag for flag in command.flags if flag[1] == name)
    refused = bench.run(evidence.trial(words, flag)[1])
    assert (refused.code, refused.requests) == (1, "[]")
    assert "not offered" in refused.said
    assert refused.said.count("\n") == 1


GLOBALS = {
    "config": ["--config", "elsewhere", "context", "use", "kept"],
    "context": ["--context", "kept", "context", "show"],
    "debug": ["--debug", "ps"],
    "host": ["--host", "unix:///elsewhere", "ps"],
    "log-level": ["--log-level", "debug", "ps"],
    "tls": ["--tls", "--host", "tcp://127.0.0.1:1", "ps"],
    "tlscacert": ["--tlscacert", "none", "--host", "tcp://127.0.0.1:1", "ps"],
    "tlscert": ["--tls", "--tlscacert", "link", "--tlscert", "none", "--host", "tcp://127.0.0.1:1", "ps"],
    "tlskey": ["--tls", "--tlscacert", "link", "--tlskey", "none", "--host", "tcp://127.0.0.1:1", "ps"],
    "tlsverify": ["--tlsverify", "--host", "tcp://127.0.0.1:1", "ps"],
    "version": ["--version"],
}


@pytest.mark.parametrize("name", [flag[1] for flag in GLOBAL_FLAGS])
def test_a_global_flag_has_an_effect(bench: evidence.Bench, name: str) -> None:
    given = GLOBALS[name]
    at = given.index(f"--{name}")
    wide = 1 if name in ("debug", "tls", "tlsverify", "version") else 2
    assert bench.run(given) != bench.run([*given[:at], *given[at + wide :]])


@pytest.mark.parametrize("place", sorted(set(evidence.ELSEWHERE.values())))
def test_what_is_shown_elsewhere_is(place: str) -> None:
    path, _, function = place.partition("::")
    assert f"def {function}(" in (ROOT / path).read_text()


def test_load_at_a_terminal_shows_progress(bench: evidence.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.isatty", lambda fd: fd == 1)
    assert "quiet=0" in bench.run(["load", "--input", "image.tar"]).requests
    assert "quiet=1" in bench.run(["load", "--input", "image.tar", "--quiet"]).requests


def test_progress_of_a_copy_is_for_terminals(bench: evidence.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.isatty", lambda _fd: True)
    assert "Successfully copied" in bench.run(["cp", "image.tar", "box:/"]).said
    assert "Successfully copied" not in bench.run(["cp", "--quiet", "image.tar", "box:/"]).said


@pytest.mark.parametrize(
    "words", ["swarm init", "service ls", "stack deploy x", "config ls", "node ls", "secret ls"]
)
def test_swarm_says_what_to_use_instead(bench: evidence.Bench, words: str) -> None:
    said = bench.run(words.split())
    name = words.split()[0]
    assert (said.code, said.requests) == (1, "[]")
    assert said.said == (
        f"sampan {name}: Swarm mode is not offered; run several containers as one with Compose "
        "(sampan compose)\n"
    )


def test_content_trust_cannot_be_asked_for(bench: evidence.Bench) -> None:
    said = bench.run(["run", "--disable-content-trust=false", "busybox"])
    assert said.code == 1
    assert "Content Trust is not offered" in said.said
