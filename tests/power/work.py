"""What is done to an engine until its power fails: one client, steps chosen by chance, all in the ledger.

Kinds of things: image, container, volume, network by name, with what tells one from another; ``file`` is a
file in a volume that was synced, ``written`` one that a container synced in its own files, ``policy`` a
container's restart policy by its id.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from tests import archives
from tests.e2e import images
from tests.power.engine import Engine
from tests.power.ledger import Ledger

BASE = images.NAME
_LABEL = 200_000
_ROUNDS = 24


def prepare(engine: Engine, registry: str | None) -> list[str]:
    """What is there before anything is recorded; images to pull.

    The state's log becomes so long that it is written over from its beginning from now on: then its sync
    alone no longer takes the file system's own journal with it, as the growth of a file would.
    """
    engine.send("POST", "/images/load", images.busybox(), quiet="1")
    for number in range(_ROUNDS):
        made = {"Image": BASE, "Labels": {"long": "x" * _LABEL}}
        found = engine.send("POST", "/containers/create", made, name=f"long{number}")
        engine.send("DELETE", f"/containers/{found['Id']}")
    pulled = []
    for number in range(2 if registry else 0):
        name = f"{registry}/far:{number}"
        layers = [archives.layer(**{f"far{number}-{one}": os.urandom(5000)}) for one in range(2)]
        engine.send("POST", "/images/load", archives.pack(archives.docker_files(layers, [name])), quiet="1")
        engine.send("POST", f"/images/{registry}/far/push", b"", tag=str(number))
        engine.send("DELETE", f"/images/{name}")
        pulled.append(name)
    return pulled


@dataclass(slots=True)
class Work:
    """Steps on ``engine``, chosen by ``chance``."""

    engine: Engine
    ledger: Ledger
    chance: random.Random
    pulled: list[str]
    _serial: int = 0
    _running: list[str] = field(default_factory=list)

    def steps(self, count: int, among: Collection[str]) -> None:
        kinds = [kind for kind, weight in _STEPS.items() if kind in among for _ in range(weight)]
        for _ in range(count):
            self._serial += 1
            _DO[self.chance.choice(kinds)](self)

    def everything(self, among: Collection[str]) -> None:
        """Every kind of step once."""
        for kind in _STEPS:
            if kind in among:
                self._serial += 1
                _DO[kind](self)

    # ------------------------------------------------------------------ images

    def _free(self, kind: str) -> str:
        return f"{kind}{self._serial}"

    def _some(self, kind: str) -> str | None:
        return self.chance.choice(found) if (found := sorted(self.ledger.present(kind))) else None

    def _bytes(self) -> bytes:
        return self.chance.randbytes(self.chance.choice((0, 10, 5_000, 300_000)))

    def _id(self, name: str) -> str:
        found: str = self.engine.send("GET", f"/images/{name}/json")["Id"]
        return found

    def _base(self) -> str:
        """An image with a shell."""
        return self.chance.choice(
            [BASE, *(name for name in sorted(self.ledger.present("image")) if "on" in name)]
        )

    def load(self) -> None:
        name = f"{self._free('loaded')}:1"
        layers = [
            archives.layer(one=self._bytes(), serial=str(self._serial).encode()),
            archives.layer(two=self._bytes()),
        ]
        zipped = self.chance.random() < 0.5
        made = archives.pack(archives.docker_files(layers, [name], zipped=zipped))
        with self.ledger.change(f"load {name}", ("image", name)) as change:
            self.engine.send("POST", "/images/load", made, quiet="1")
            change.values["image", name] = self._id(name)

    def pull(self) -> None:
        if not self.pulled:
            return
        name = self.chance.choice(self.pulled)
        with self.ledger.change(f"pull {name}", ("image", name)) as change:
            self.engine.send("POST", "/images/create", b"", fromImage=name)
            change.values["image", name] = self._id(name)

    def build(self) -> None:
        name = f"{self._free('on')}:1"
        lines = [f"FROM {self._base()}", f"LABEL serial={self._serial}", "COPY x /x"]
        if self.chance.random() < 0.5:
            lines.append(f"RUN echo {self._serial} > /made")
        files = {"Dockerfile": "\n".join(lines).encode(), "x": self._bytes()}
        with self.ledger.change(f"build {name}", ("image", name)) as change:
            self.engine.send("POST", "/build", archives.pack(dict(files)), t=name, q="1")
            change.values["image", name] = self._id(name)

    def commit(self) -> None:
        source = self._some("container")
        if source is None:
            return
        name = self._free("committed")
        with self.ledger.change(f"commit {name}", ("image", f"{name}:1")) as change:
            self.engine.send("POST", "/commit", {}, container=source, repo=name, tag="1")
            change.values["image", f"{name}:1"] = self._id(f"{name}:1")

    def tag(self) -> None:
        source = self._some("image")
        if source is None:
            return
        name = self.chance.choice((f"tag{self.chance.randrange(4)}", self._free("tag")))
        with self.ledger.change(f"tag {source} {name}", ("image", f"{name}:1")) as change:
            change.values["image", f"{name}:1"] = self.ledger.present("image")[source]
            self.engine.send("POST", f"/images/{source}/tag", b"", repo=name, tag="1")

    def untag(self) -> None:
        name = self._some("image")
        if name is None:
            return
        with self.ledger.change(f"rmi {name}", ("image", name)):
            self.engine.send("DELETE", f"/images/{name}", force="1")

    # ------------------------------------------------------------------ containers

    def _create(self, name: str, body: dict[str, Any]) -> str:
        found: str = self.engine.send("POST", "/containers/create", body, name=name)["Id"]
        return found

    def create(self) -> None:
        name = self._free("made")
        host: dict[str, Any] = {"NetworkMode": self._some("network") or "none"}
        things = [("container", name)]
        if self.chance.random() < 0.4:  # a volume that takes over what the image has
            volume = self._free("filled")
            host["Binds"] = [f"{volume}:/etc"]
            things += [("volume", volume), ("file", f"{volume}/passwd")]
        word = str(self.chance.random())
        body = {"Image": self._base(), "Cmd": ["true"], "Labels": {"word": word}, "HostConfig": host}
        with self.ledger.change(f"create {name}", *things) as change:
            change.values["container", name] = self._create(name, body) + word
            for kind, thing in things[1:]:
                change.values[kind, thing] = _PASSWD if kind == "file" else "{}"

    def run(self) -> None:
        """A container that writes a file, has it on the disk, and ends."""
        name, word = self._free("ran"), f"{self._serial}"
        script = f"echo {word} | dd of=/out conv=fsync 2>/dev/null"
        body = {
            "Image": self._base(),
            "Cmd": ["sh", "-c", script],
            "Labels": {},
            "HostConfig": {"NetworkMode": "none"},
        }
        with self.ledger.change(f"create {name}", ("container", name)) as change:
            change.values["container", name] = (found := self._create(name, body))
        with self.ledger.change(f"run {name}", ("written", name)) as change:
            self.engine.send("POST", f"/containers/{found}/start")
            ended = self.engine.send("POST", f"/containers/{found}/wait")
            assert ended["StatusCode"] == 0, ended
            change.values["written", name] = f"{word}\n".encode()

    def stay(self) -> None:
        """A container that runs on."""
        name = self._free("runs")
        policy = {"Name": self.chance.choice(("no", "always", "unless-stopped", "on-failure"))}
        host = {"NetworkMode": self._some("network") or "bridge", "RestartPolicy": policy}
        body = {"Image": BASE, "Cmd": ["sleep", "1000"], "Labels": {}, "HostConfig": host}
        with self.ledger.change(f"create {name}", ("container", name)) as change:
            change.values["container", name] = (found := self._create(name, body))
        self.engine.send("POST", f"/containers/{found}/start")
        self._running.append(name)

    def pass_by(self) -> None:
        """A container of which nothing stays, and nothing is promised."""
        host = {"NetworkMode": "none", "AutoRemove": True}
        found = self._create(self._free("passing"), {"Image": BASE, "Cmd": ["true"], "HostConfig": host})
        self.engine.send("POST", f"/containers/{found}/start")

    def rename(self) -> None:
        old = self._some("container")
        if old is None:
            return
        new, value = self._free("named"), self.ledger.present("container")[old]
        things = [("container", old), ("container", new)]
        written = self.ledger.present("written").get(old)
        if written is not None:
            things += [("written", old), ("written", new)]
        with self.ledger.change(f"rename {old} {new}", *things) as change:
            change.values["container", new] = value
            if written is not None:
                change.values["written", new] = written
            self.engine.send("POST", f"/containers/{old}/rename", b"", name=new)

    def update(self) -> None:
        name = self._some("container")
        if name is None:
            return
        found, policy = self._id_of(name), self.chance.choice(("no", "on-failure"))
        with self.ledger.change(f"update {name}", ("policy", found)) as change:
            change.values["policy", found] = policy
            self.engine.send("POST", f"/containers/{name}/update", {"RestartPolicy": {"Name": policy}})

    def _id_of(self, container: str) -> str:
        found: str = self.engine.send("GET", f"/containers/{container}/json")["Id"]
        return found

    def remove(self) -> None:
        name = self._some("container")
        if name is None:
            return
        things = (("container", name), ("written", name), ("policy", self._id_of(name)))
        with self.ledger.change(f"rm {name}", *things):
            self.engine.send("DELETE", f"/containers/{name}", force="1")

    # ------------------------------------------------------------------ volumes and networks

    def volume(self) -> None:
        name, labels = self._free("volume"), {"word": str(self._serial)}
        with self.ledger.change(f"volume create {name}", ("volume", name)) as change:
            self.engine.send("POST", "/volumes/create", {"Name": name, "Labels": labels})
            change.values["volume", name] = json.dumps(labels)

    def write(self) -> None:
        """A file in a volume that its writer has on the disk, as a database does."""
        name = self._some("volume")
        if name is None:
            return
        data, place = self._bytes(), self.engine.send("GET", f"/volumes/{name}")["Mountpoint"]
        with self.ledger.change(f"write to {name}", ("file", f"{name}/own{self._serial}")) as change:
            change.values["file", f"{name}/own{self._serial}"] = data
            fd = os.open(f"{place}/own{self._serial}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
            try:
                os.write(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def _free_volumes(self) -> list[str]:
        used = {
            mount.get("Name")
            for one in self.engine.send("GET", "/containers/json", all="1")
            for mount in one["Mounts"]
        }
        return sorted(name for name in self.ledger.present("volume") if name not in used)

    def drop(self) -> None:
        if not (names := self._free_volumes()):
            return
        name = self.chance.choice(names)
        files = [("file", path) for path in self.ledger.present("file") if path.startswith(f"{name}/")]
        with self.ledger.change(f"volume rm {name}", ("volume", name), *files):
            self.engine.send("DELETE", f"/volumes/{name}")

    def network(self) -> None:
        name, subnet = self._free("net"), f"10.213.{self._serial % 250}.0/24"
        with self.ledger.change(f"network create {name}", ("network", name)) as change:
            body = {"Name": name, "IPAM": {"Config": [{"Subnet": subnet}]}}
            change.values["network", name] = self.engine.send("POST", "/networks/create", body)["Id"] + subnet

    def unplug(self) -> None:
        names = sorted(self.ledger.present("network"))
        used = {
            name
            for one in self.engine.send("GET", "/containers/json", all="1")
            for name in one["NetworkSettings"]["Networks"]
        }
        if not (names := [name for name in names if name not in used]):
            return
        name = self.chance.choice(names)
        with self.ledger.change(f"network rm {name}", ("network", name)):
            self.engine.send("DELETE", f"/networks/{name}")

    def prune(self) -> None:
        kind = self.chance.choice(("container", "volume", "network", "image", "build"))
        if kind in ("image", "build"):
            self.engine.send("POST", f"/{kind}s/prune" if kind == "image" else "/build/prune", b"")
            return
        names = list(self.ledger.present(kind))
        beside = {"container": ("written", "policy"), "volume": ("file",)}.get(kind, ())
        with self.ledger.change(f"{kind} prune") as change:
            before = {(kind, name): self.ledger.present(kind)[name] for name in names}
            for other in beside:
                before |= {(other, name): value for name, value in self.ledger.present(other).items()}
            change.values.update(dict.fromkeys(before))
            arguments = {"filters": '{"all":["true"]}'} if kind == "volume" else {}
            self.engine.send("POST", f"/{kind}s/prune", b"", **arguments)
            left = _seen(self.engine, kind)
            for thing, value in before.items():
                if thing[1].partition("/")[0] in left:
                    change.values[thing] = value


def _seen(engine: Engine, kind: str) -> set[str]:
    """The names of what there is of a kind; of containers their ids too."""
    if kind == "container":
        found = engine.send("GET", "/containers/json", all="1")
        return {name for one in found for name in (one["Id"], one["Names"][0][1:])}
    if kind == "volume":
        return {one["Name"] for one in engine.send("GET", "/volumes")["Volumes"] or ()}
    return {one["Name"] for one in engine.send("GET", "/networks")}


_PASSWD = images._FILES["etc/passwd"]

_DO: dict[str, Callable[[Work], None]] = {
    name: getattr(Work, name)
    for name in (
        *("load", "build", "create", "run", "volume", "write", "network", "commit", "tag", "pull", "stay"),
        *("rename", "update", "pass_by", "untag", "remove", "drop", "unplug", "prune"),
    )
}
KINDS = tuple(_DO)
_STEPS = {name: 1 if name in ("prune", "stay", "pull", "pass_by") else 2 for name in _DO}
