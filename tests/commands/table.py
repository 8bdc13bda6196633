"""docs/commands.md: what becomes of every command and flag that Docker's client has.

Laws: a flag is "works" if our table of flags has it and no reason below refuses it; a refusal names its
reason; what is neither is "missing". That a flag works, and not only parses, is for ``evidence.py`` to show.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sampan.cli.command import Command
from sampan.cli.index import GROUPS, INSTEAD, module_of
from sampan.cli.main import GLOBAL_FLAGS, load
from tests.reference import REFERENCE

SOURCE = REFERENCE / "docker-cli-28.2.json"

SWARM = "Swarm mode is not offered"
WINDOWS = "Windows only, as with Docker on Linux"
CHECKPOINT = "needs CRIU and an experimental engine, as with Docker"
TRUST = "Docker Content Trust is not offered; every image is checked by its digest"

COMMANDS: dict[str, str] = {
    "checkpoint create": CHECKPOINT,
    "checkpoint ls": CHECKPOINT,
    "checkpoint rm": CHECKPOINT,
    "volume update": f"cluster volumes only: {SWARM}",
}
"""Commands that are refused with all their flags, by the words of our table."""

CLUSTER = f"cluster volumes: {SWARM}"

FLAGS: dict[tuple[str, str], str] = {
    **{
        (words, flag): reason
        for words in ("create", "run")
        for flag, reason in {
            "cpu-count": WINDOWS,
            "cpu-percent": WINDOWS,
            "disable-content-trust": TRUST,
            "io-maxbandwidth": WINDOWS,
            "io-maxiops": WINDOWS,
        }.items()
    },
    ("volume ls", "cluster"): CLUSTER,
    **{
        ("volume create", flag): CLUSTER
        for flag in (
            *("availability", "group", "limit-bytes", "required-bytes", "scope", "secret", "sharing"),
            *("topology-preferred", "topology-required", "type"),
        )
    },
}
"""Flags that are refused, or taken and without effect where the reason says so, by our words for the command.
"""

HOLLOW: dict[tuple[str, str], str] = {
    (words, "kernel-memory"): "taken without effect, as with Docker since API 1.42"
    for words in ("create", "run")
} | {
    ("build", "disable-content-trust"): f"taken without effect: {TRUST}",
    ("build", "isolation"): f"taken without effect: {WINDOWS}",
}
"""Flags that do nothing, because Docker's do nothing."""

GROUP_REASONS: dict[str, str] = {
    **dict.fromkeys(("config", "node", "secret", "service", "stack", "swarm"), SWARM),
    "plugin": "managed plugins are not offered; volume drivers are found by their sockets",
    "trust": TRUST,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A command of the reference. ``flags``: name to state. ``ours``: our words for it, "" for none."""

    words: str
    state: str
    ours: str
    flags: dict[str, str] = field(default_factory=dict)


def reference() -> dict[str, Any]:
    """Docker's commands by their words."""
    found: dict[str, Any] = json.loads(SOURCE.read_text())
    return found


def command_of(words: str) -> Command | None:
    """Our command of that spelling."""
    path = words.split()
    module = module_of(path)
    return load(module, words) if module else None


def rows() -> Iterator[Row]:
    """Every command of the reference, in its order."""
    for words, docker in reference().items():
        names = [flag["long"][2:] for flag in docker["flags"] if flag["long"] != "--help"]
        first = words.partition(" ")[0]
        if first in INSTEAD and first in GROUP_REASONS:
            state = f"refused: {GROUP_REASONS[first]}"
            yield Row(words=words, state=state, ours="", flags=dict.fromkeys(names, state))
        elif words in GROUPS:
            yield Row(words=words, state="works", ours=words)
        elif not words:
            ours = {flag[1] for flag in GLOBAL_FLAGS}
            states = {name: "works" if name in ours else "missing" for name in names}
            yield Row(words=words, state="works", ours="", flags=states)
        else:
            yield _row(words, names)


def _row(words: str, names: list[str]) -> Row:
    command = command_of(words)
    if command is None:
        return Row(words=words, state="missing", ours="", flags=dict.fromkeys(names, "missing"))
    ours = {flag[1] for flag in command.flags}
    refused = COMMANDS.get(command.words)
    states = {}
    for name in names:
        reason = refused or FLAGS.get((command.words, name))
        hollow = HOLLOW.get((command.words, name))
        works = f"works: {hollow}" if hollow else "works"
        states[name] = "missing" if name not in ours else f"refused: {reason}" if reason else works
    state = f"refused: {refused}" if refused else "works"
    return Row(words=words, state=state, ours=command.words, flags=states)


def render() -> str:
    """The document."""
    found = list(rows())
    states = [state for row in found for state in (row.state, *row.flags.values())]
    works = sum(state.startswith("works") for state in states)
    refused = sum(state.startswith("refused") for state in states)
    missing = sum(state == "missing" for state in states)
    lines = [
        "# Commands and flags",
        "",
        "Every command and flag of the docker CLI 28.2, and what `sampan` makes of it. Written by",
        "`tools/commands-table`; a test fails when it is out of date, when anything is missing, and when",
        "a flag that works has no effect.",
        "",
        f"{len(found)} commands and {len(states) - len(found)} flags: {works} work, {refused} are refused, "
        f"{missing} are missing.",
        "",
        "| command | what becomes of it | flags |",
        "|---|---|---|",
    ]
    told: dict[str, str] = {}
    for row in found:
        name = f"docker {row.words}".strip()
        if row.ours and row.ours in told and row.ours not in GROUPS:
            lines.append(f"| {name} | as `{told[row.ours]}` | |")
            continue
        if row.ours:
            told[row.ours] = name
        lines += [f"| {name} | {state} | {flags} |" for state, flags in _by_state(row)]
    return "\n".join(lines) + "\n"


def _by_state(row: Row) -> Iterator[tuple[str, str]]:
    """The states of a command and its flags, and the flags in each; the command's own first."""
    found: dict[str, list[str]] = {row.state: []}
    for name, state in row.flags.items():
        found.setdefault(state, []).append(f"`--{name}`")
    for state, names in found.items():
        yield state, " ".join(names)
