"""Leftovers: what lies on the host and on the disk, held against what the engine says that it has.

The checks look by themselves (directories, /proc, netlink by ``ip`` and ``nft``, rows of the database): the
engine cannot be blind to the same thing. The chaos runs in a network namespace of its own: all links, tables
and addresses in it are the engine's.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan.network.naming import bridge_name
from tests.chaos import processes
from tests.chaos.engine import Engine

GROUPS = "/sys/fs/cgroup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the engine says that there is. ``running``: id → inspect of each container with a process."""

    containers: set[str]
    running: dict[str, dict[str, Any]]
    networks: dict[str, str]  # id → name
    volumes: set[str]
    images: set[str]


@dataclass(slots=True)
class Seen:
    """Numbers that must be the same again whenever the same things are there."""

    descriptors: dict[tuple[int, ...], dict[str, int]] = field(default_factory=dict)


def problems(engine: Engine, said: Said, seen: Seen) -> list[str]:
    """What does not fit; each is one line."""
    return [
        *_directories(engine, said),
        *_rows(engine, said),
        *_groups(engine, said),
        *_processes(engine, said, seen),
        *_network(engine, said),
        *_mounts(engine),
    ]


def _differ(what: str, there: Iterable[str], wanted: Iterable[str]) -> list[str]:
    there, wanted = set(there), set(wanted)
    found = []
    if there - wanted:
        found.append(f"{what}: left over: {sorted(there - wanted)}")
    if wanted - there:
        found.append(f"{what}: missing: {sorted(wanted - there)}")
    return found


def names(path: str) -> list[str]:
    with suppress(FileNotFoundError):
        return os.listdir(path)
    return []


def _directories(engine: Engine, said: Said) -> list[str]:
    data = engine.data
    found = _differ("containers/", names(f"{data}/containers"), said.containers)
    found += _differ("snapshots/", names(f"{data}/snapshots"), said.containers)
    found += _differ("run/containers/", _settled(names(f"{engine.run}/containers"), said), said.running)
    found += _differ("volumes/", names(f"{data}/volumes"), said.volumes)
    found += _differ("tmp/", names(f"{data}/tmp"), ())
    for identity in said.containers:
        found += [
            f"container {identity[:12]}: {name} is left over"
            for name in names(f"{data}/containers/{identity}")
            if name.endswith((".part", ".new", ".tmp"))
        ]
    return found


def _rows(engine: Engine, said: Said) -> list[str]:
    connection = sqlite3.connect(f"file:{engine.data}/state.db?mode=ro", uri=True, timeout=10)
    try:

        def column(query: str) -> set[str]:
            return {str(row[0]) for row in connection.execute(query)}

        found = _differ("rows of containers", column("SELECT id FROM containers"), said.containers)
        found += _differ("rows of volumes", column("SELECT name FROM volumes"), said.volumes)
        found += _differ("rows of images", column("SELECT id FROM images"), said.images)
        user = {
            identity for identity, name in said.networks.items() if name not in ("bridge", "host", "none")
        }
        found += _differ("rows of networks", column("SELECT id FROM user_networks"), user)
        layers = column("SELECT id FROM layers") | {"init", "empty"}
        found += _differ("layers/", names(f"{engine.data}/layers"), layers)
        blobs = column("SELECT blob FROM layers") | column("SELECT id FROM images")
        here = {f"sha256:{name}" for name in names(f"{engine.data}/blobs/sha256")}
        found += [f"blob {blob} is missing" for blob in sorted(blobs - here)]
        chains = column("SELECT chain_id FROM layers")
        parents = column("SELECT parent FROM layers WHERE parent IS NOT NULL")
        found += [f"layer {chain} is missing" for chain in sorted(parents - chains)]
        return found
    finally:
        connection.close()


def groups_of(engine: Engine) -> set[str]:
    """The names of containers' groups in any hierarchy."""
    found = set()
    parent = bridge_name(engine.data)
    for tree in (GROUPS, *(f"{GROUPS}/{name}" for name in names(GROUPS))):
        found |= {name for name in names(f"{tree}/{parent}") if len(name) == 64}
    return found


def frozen(pid: int) -> bool:
    """Whether a process is in a frozen cgroup of either version."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "freezer":
            with suppress(OSError):
                return Path(f"{GROUPS}/freezer{path}/freezer.state").read_text().strip() != "THAWED"
        if not controllers:
            for tree in (GROUPS, f"{GROUPS}/unified"):
                with suppress(OSError):
                    if Path(f"{tree}{path}/cgroup.freeze").read_text().strip() == "1":
                        return True
    return False


def _groups(engine: Engine, said: Said) -> list[str]:
    return _differ("cgroups", _settled(groups_of(engine), said), said.running)


def _settled(there: Iterable[str], said: Said) -> set[str]:
    """Without what is made ahead for the container that is expected next."""
    there = set(there)
    ahead = there - set(said.running)
    return there - ahead if len(ahead) == 1 else there


def _processes(engine: Engine, said: Said, seen: Seen) -> list[str]:
    processes.bury(engine.own)
    every = processes.of_engine(engine.run)
    kinds: dict[str, list[int]] = {}
    for one in every:
        kinds.setdefault(one.kind, []).append(one.pid)
    running = len(said.running)
    found = []
    keepers = len(kinds.get("keeper", ()))
    if keepers not in (running, running + 1):  # one stands by
        found.append(f"{keepers} keepers for {running} containers")
    for kind, most in (
        ("daemon", 1),
        ("zygote", 1),
        ("seed", 1),
        ("launcher", 1),
        ("child", 1),
        ("worker", 0),
    ):
        if len(kinds.get(kind, ())) > most:
            found.append(f"{len(kinds[kind])} of {kind}: {kinds[kind]}")
    for one in every:
        if one.kind == "program":
            with suppress(OSError):
                text = Path(f"/proc/{one.pid}/cgroup").read_text()
                if not any(identity in text for identity in said.running):
                    found.append(f"a process of no container: {one.pid} {one.command!r}")
    if keepers == running + 1:
        found += _descriptors(kinds, said, seen)
    return found


def _descriptors(kinds: dict[str, list[int]], said: Said, seen: Seen) -> list[str]:
    """A process has no more descriptors than it had when there was as much of everything."""
    found = []
    for kind in ("daemon", "zygote"):
        for pid in kinds.get(kind, ()):
            began = processes.look(pid)
            helpers = tuple(len(kinds.get(one, ())) for one in ("seed", "attendant"))
            key = (pid, began.began if began else 0, len(said.running), len(said.networks), *helpers)
            every = processes.descriptors(pid, [one["State"]["Pid"] for one in said.running.values()])
            asking = {sort: number for sort, number in every.items() if sort.startswith("names of ")}
            # How many containers ask for names follows from nothing that is counted here.
            now = {sort: number for sort, number in every.items() if sort not in asking}
            before = seen.descriptors.setdefault(key, now)
            if now.get("net:") or now.get("mnt:"):
                found.append(f"the {kind} holds namespaces: {now}")
            if any(number > 2 for number in asking.values()):
                found.append(f"the {kind} has more than two sockets for a container's questions: {asking}")
            if sum(now.values()) > sum(before.values()):
                told = "\n".join(processes.peers(pid))
                found.append(f"the {kind} ({pid}) has more descriptors: {now}, before {before}\n{told}")
            elif sum(now.values()) < sum(before.values()):
                seen.descriptors[key] = now
    return found


def _tool(*command: str) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout or "[]")


def links() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _tool("ip", "-j", "link")
    return found


def _network(engine: Engine, said: Said) -> list[str]:
    default = bridge_name(engine.data)
    bridges = {
        f"br-{identity[:12]}"
        for identity, name in said.networks.items()
        if name not in ("bridge", "host", "none")
    }
    there = links()
    found = _differ(
        "bridges", (one["ifname"] for one in there if "master" not in one), {"lo", default, *bridges}
    )
    plugged = sum(len(one["NetworkSettings"]["Networks"]) for one in said.running.values())
    ports = [one["ifname"] for one in there if "master" in one]
    if len(ports) != plugged:
        found.append(f"{len(ports)} interfaces for {plugged}: {ports}")
    rules = subprocess.run(
        ["nft", "-j", "list", "ruleset"], capture_output=True, text=True, check=True
    ).stdout
    tables = {one["table"]["name"] for one in json.loads(rules)["nftables"] if "table" in one}
    known = (default, *bridges)
    found += [
        f"table {table} is nobody's"
        for table in sorted(tables)
        if table not in ("nat", "filter")
        and not any(table == name or table.startswith(f"{name}-") for name in known)
    ]
    found += [f"bridge {name} has no rules" for name in sorted(bridges) if name not in tables]
    found += _addresses(rules, said)
    shared = {name.removesuffix(".json") for name in names("/run/sampan-networks") if name.endswith(".json")}
    return found + _differ("/run/sampan-networks", shared, known)


def _addresses(rules: str, said: Said) -> list[str]:
    """Addresses of containers in rules are those of running ones."""
    living, gateways = set(), set()
    for one in said.running.values():
        for end in one["NetworkSettings"]["Networks"].values():
            living.add(end["IPAddress"])
    for entry in _tool("ip", "-j", "-4", "addr"):
        gateways |= {address["local"] for address in entry["addr_info"]}
    subnets = [
        ipaddress.ip_network(f"{entry['prefsrc']}/16", strict=False)
        for entry in _tool("ip", "-j", "-4", "route")
        if "prefsrc" in entry
    ]
    found = []
    for text in set(re.findall(r'"(\d+\.\d+\.\d+\.\d+)"', rules)) - living - gateways:
        address = ipaddress.ip_address(text)
        whole = any(address == subnet.network_address or text.endswith(".0") for subnet in subnets)
        if not whole and any(address in subnet for subnet in subnets):
            found.append(f"a rule names {text}, which no container has")
    return found


def _mounts(engine: Engine) -> list[str]:
    found = []
    for pid in (os.getpid(), engine.pid):
        with suppress(OSError), open(f"/proc/{pid}/mountinfo") as file:
            found += [f"mounted: {line.split()[4]}" for line in file if f" {engine.root}/" in line]
    return found
