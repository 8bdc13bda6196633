"""The engine's answers against the model: what differs, and then what is learnt from them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos import host, processes
from tests.chaos.clients import Client, World
from tests.chaos.containers import gap
from tests.chaos.host import Said
from tests.chaos.model import (
    ABSENT,
    CREATED,
    EXITED,
    KILLED,
    PAUSED,
    PRESENT,
    RESTARTING,
    RUNNING,
    Box,
    Thing,
)

_WITH_PROCESS = (RUNNING, PAUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the engine answers. ``containers``: name → inspect; ``images``: name → its row in the list."""

    containers: dict[str, dict[str, Any]]
    images: dict[str, dict[str, Any]]
    nameless: list[dict[str, Any]]
    networks: dict[str, dict[str, Any]]
    volumes: dict[str, dict[str, Any]]

    @property
    def said(self) -> Said:
        running = {
            one["Id"]: one for one in self.containers.values() if one["State"]["Status"] in _WITH_PROCESS
        }
        return Said(
            containers={one["Id"] for one in self.containers.values()},
            running=running,
            networks={one["Id"]: name for name, one in self.networks.items()},
            volumes=set(self.volumes),
            images={one["Id"] for one in (*self.images.values(), *self.nameless)},
        )

    def stands(self) -> list[tuple[str, str, int]]:
        return sorted(
            (one["Id"], one["State"]["Status"], one["State"]["Pid"]) for one in self.containers.values()
        )


def facts(world: World) -> Facts:
    def ask(path: str) -> Any:
        answer = world.engine.ask("GET", path)
        assert answer.status == 200, (path, answer)
        return answer.json()

    containers = {}
    for row in ask("/containers/json?all=1"):
        answer = world.engine.ask("GET", f"/containers/{row['Id']}/json")
        if answer.status == 200:
            containers[row["Names"][0][1:]] = answer.json()
    images, nameless = {}, []
    for row in ask("/images/json?all=1"):
        for name in row["RepoTags"] or ():
            images[name] = row
        if not row["RepoTags"]:
            nameless.append(row)
    return Facts(
        containers=containers,
        images=images,
        nameless=nameless,
        networks={row["Name"]: row for row in ask("/networks")},
        volumes={row["Name"]: row for row in ask("/volumes")["Volumes"] or ()},
    )


# ---- differences


def differences(clients: Sequence[Client], found: Facts, *, restarted: bool) -> list[str]:
    """``restarted``: a daemon was started since the model last learnt."""
    wrong: list[str] = []
    known = {"busybox:latest"}
    for client in clients:
        for box in client.has.boxes.values():
            wrong += _box(client, box, found.containers.get(box.name), restarted=restarted)
        for name in client.has.passing:
            one = found.containers.get(name)
            if one is not None and one["State"]["Status"] != CREATED:
                wrong.append(f"{name} of run --rm is still {one['State']['Status']}")
        for sort, seen in (
            ("networks", found.networks),
            ("volumes", found.volumes),
            ("images", found.images),
        ):
            for name, thing in getattr(client.has, sort).items():
                wrong += _thing(sort, thing, seen.get(name))
        for volume in client.has.volumes.values():
            if volume.name in found.volumes:
                wrong += _written(
                    f"volume {volume.name}",
                    client.world.engine.data + f"/volumes/{volume.name}/_data/log",
                    volume.words,
                )
        known |= {
            *client.has.boxes,
            *client.has.passing,
            *client.has.networks,
            *client.has.volumes,
            *client.has.images,
        }
    for sort, names in (("container", found.containers), ("image", found.images), ("volume", found.volumes)):
        wrong += [f"{sort} {name} is nobody's" for name in names if name not in known]
    wrong += [
        f"network {name} is nobody's"
        for name in found.networks
        if name not in known | {"bridge", "host", "none"}
    ]
    # As in Docker, a name goes before its image does: an image that was being removed may be there without.
    untagged = {word for client in clients for word in client.has.untagged}
    wrong += [
        f"image {one['Id']} ({one['Labels']}) has no name"
        for one in found.nameless
        if (one["Labels"] or {}).get("word") not in untagged
    ]
    return wrong


def _box(client: Client, box: Box, one: dict[str, Any] | None, *, restarted: bool) -> list[str]:
    state = one["State"] if one is not None else {"Status": ABSENT}
    status = state["Status"]
    may = set(box.possible)
    if restarted and box.policy and EXITED in may:
        if status == EXITED and box.comes_back(state["ExitCode"]) and one is not None and _ran(state):
            return [f"{box.name}: {box.policy} brings it back, and it is {status}"]
        may |= {RUNNING, RESTARTING}
    if box.policy and box.turns < 0 and RUNNING in may:
        may.discard(RESTARTING)  # nothing keeps it from running: what waits for its start is no rest yet
    if status not in may:
        return [f"{box.name} is {status}, and not {sorted(may)} ({box.policy or 'no policy'}: {state})"]
    if one is None:
        return []
    if box.identity and one["Id"] != box.identity:
        return [f"{box.name} is another: {one['Id']}, and not {box.identity}"]
    wrong = []
    if status in _WITH_PROCESS:
        wrong += _living(box, one)
    elif status == EXITED and _ran(state):
        wrong += _exit(client, box, state)
    attached = set(one["NetworkSettings"]["Networks"])
    if not box.networks <= attached <= box.networks | box.perhaps:
        wrong.append(f"{box.name} is on {attached}, and not on {box.networks} or perhaps {box.perhaps}")
    wrong += _log(client, box, one)
    wrong += _written(f"execs of {box.name}", f"{client.home(box.name)}/execs", box.execs)
    return wrong


def _ran(state: dict[str, Any]) -> bool:
    return not state["StartedAt"].startswith("0001")


def run_of(one: dict[str, Any]) -> tuple[int, int, str] | None:
    """The run of a container as it is seen; None if its process is not there."""
    pid = one["State"]["Pid"]
    found = processes.look(pid) if pid else None
    return (pid, found.began, one["State"]["StartedAt"]) if found is not None else None


def _living(box: Box, one: dict[str, Any]) -> list[str]:
    now = run_of(one)
    if now is None:
        return [f"{box.name} has no process {one['State']['Pid']}"]
    if box.run is not None and now != box.run and not (box.policy and box.lost):
        return [f"{box.name} was disturbed: {now}, before {box.run}"]
    with suppress(OSError):
        if one["Id"] not in Path(f"/proc/{now[0]}/cgroup").read_text():
            return [f"{box.name}: pid {now[0]} is not in its cgroup"]
        if host.frozen(now[0]) is not (one["State"]["Status"] == PAUSED):
            return [f"{box.name} is {one['State']['Status']}, and its cgroup says otherwise"]
        links = Path(f"/proc/{now[0]}/net/dev").read_text().count(":")
        if links != 1 + len(one["NetworkSettings"]["Networks"]):
            return [f"{box.name} has {links} links for {list(one['NetworkSettings']['Networks'])}"]
    return []


def _exit(client: Client, box: Box, state: dict[str, Any]) -> list[str]:
    code = state["ExitCode"]
    if box.policy or box.cut:
        return []
    wrote = _read(f"{client.home(box.name)}/code").strip()
    good = {int(wrote)} if wrote else {KILLED}
    if not wrote and not (box.ended_by or box.lost):
        return [f"{box.name} was ended by nobody: {state}"]
    if box.lost or "kill" in box.ended_by or "rm" in box.ended_by:
        good.add(KILLED)
    if code not in good:
        return [f"{box.name} exited with {code}, and not {good}: {state}"]
    if box.lost and code == KILLED and not box.ended_by and not state["Error"]:
        return [f"{box.name} does not say why it was killed: {state}"]
    return []


def _log(client: Client, box: Box, one: dict[str, Any]) -> list[str]:
    """The log as it lies on the disk: whole lines, no gap, and all that the program knows to have said."""
    said = _read(f"{client.home(box.name)}/at").strip()
    path = f"{client.engine.data}/containers/{one['Id']}/{one['Id']}-json.log"
    lines = []
    for line in _read(path).splitlines(keepends=True):
        try:
            lines.append(str(json.loads(line)["log"]).rstrip("\n"))
        except (ValueError, KeyError):
            if not box.torn:
                return [f"log of {box.name}: {line!r} is no line"]
    if text := gap(lines):
        return [f"log of {box.name}: {text}"]
    if lines.count("0") > box.runs and not box.policy:
        return [f"log of {box.name}: {lines.count('0')} runs, at most {box.runs} were asked for"]
    if said and not (box.lost or box.cut or box.policy) and (not lines or int(lines[-1]) < int(said)):
        return [f"log of {box.name} ends with {lines[-1:]}, and its program had said {said}"]
    return []


def _read(path: str) -> str:
    with suppress(FileNotFoundError):
        return Path(path).read_text()
    return ""


def _written(where: str, path: str, words: dict[str, set[int]]) -> list[str]:
    there = Counter(_read(path).split())
    wrong = [
        f"{where}: {word} is there {there[word]} times, and not {sorted(often)}"
        for word, often in words.items()
        if there[word] not in often
    ]
    return wrong + [f"{where}: nobody wrote {word}" for word in there if word not in words]


def _thing(sort: str, thing: Thing, one: dict[str, Any] | None) -> list[str]:
    status = ABSENT if one is None else PRESENT
    if status not in thing.possible:
        return [f"{sort}: {thing.name} is {status}, and not {sorted(thing.possible)}"]
    if one is None:
        return []
    if thing.identity and one.get("Id", "") != thing.identity:
        return [f"{sort}: {thing.name} is another: {one['Id']}, and not {thing.identity}"]
    if thing.word and (one["Labels"] or {}).get("word") != thing.word:
        return [f"{sort}: {thing.name} has the labels {one['Labels']}, and not {thing.word}"]
    return []


# ---- what is learnt


def learn(clients: Sequence[Client], found: Facts) -> None:
    """From now on all is as it was seen."""
    for client in clients:
        for box in client.has.boxes.values():
            _learn_box(client, box, found.containers.get(box.name))
        for sort, seen in (
            ("networks", found.networks),
            ("volumes", found.volumes),
            ("images", found.images),
        ):
            for name, thing in getattr(client.has, sort).items():
                one = seen.get(name)
                thing.possible = {ABSENT if one is None else PRESENT}
                if one is not None:
                    thing.identity = one.get("Id", "")
        for volume in client.has.volumes.values():
            there = Counter(_read(f"{client.engine.data}/volumes/{volume.name}/_data/log").split())
            volume.words = {word: {there[word]} for word in volume.words}
        client.has.passing = {name for name in client.has.passing if name in found.containers}
        client.has.forget_absent()


def _learn_box(client: Client, box: Box, one: dict[str, Any] | None) -> None:
    box.harmed = False
    if one is None:
        box.possible = {ABSENT}
        return
    status = one["State"]["Status"]
    box.identity = one["Id"]
    box.networks = set(one["NetworkSettings"]["Networks"])
    box.perhaps = set()
    box.run = run_of(one) if status in _WITH_PROCESS else None
    there = Counter(_read(f"{client.home(box.name)}/execs").split())
    box.execs = {word: {there[word]} for word in box.execs}
    if box.policy and status == RUNNING:
        box.lost = False
    if status == RUNNING and box.turns >= 0:
        box.possible = {RUNNING, EXITED}
    elif box.policy and status in (RUNNING, RESTARTING):
        box.possible = {RUNNING} if status == RUNNING else {RUNNING, RESTARTING}
    else:
        box.possible = {status}
