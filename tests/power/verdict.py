"""Whether an engine that starts after a loss of power has what was promised, whole, and nothing half made."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.power.engine import Engine, Refused
from tests.power.ledger import ANY, Thing, Value


def judge(engine: Engine, promised: dict[Thing, set[Value]]) -> list[str]:
    """What is wrong, a line each."""
    found = [line for line in engine.log().splitlines() if "level=error" in line or "is lost" in line]
    for (kind, name), allowed in promised.items():
        if ANY in allowed:
            continue
        try:
            value = _LOOK[kind](engine, name)
        except Refused as error:
            if "404" not in str(error):
                found.append(f"{kind} {name}: {error}")
                continue
            value = None
        if value not in allowed:
            found.append(f"{kind} {name} is {_short(value)}, promised: {[_short(one) for one in allowed]}")
    report = engine.send("POST", "/system/check")
    found += [f"check: {problem}" for problem in report["Problems"]]
    found += _half_made(engine)
    return [*found, *_broken(engine)]


def _short(value: Value) -> str:
    return repr(value if value is None else value[:60])


def _container(engine: Engine, name: str) -> Value:
    found = engine.send("GET", f"/containers/{name}/json")
    if found["Name"] != f"/{name}":
        return None
    labels: dict[str, str] = found["Config"]["Labels"] or {}
    return str(found["Id"]) + labels.get("word", "")


def _policy(engine: Engine, container: str) -> Value:
    return str(engine.send("GET", f"/containers/{container}/json")["HostConfig"]["RestartPolicy"]["Name"])


def _written(engine: Engine, name: str) -> Value:
    answer = engine.send("GET", f"/containers/{name}/archive", path="/out")
    with tarfile.open(fileobj=io.BytesIO(answer)) as archive:
        file = archive.extractfile("out")
        return file.read() if file else None


def _image(engine: Engine, name: str) -> Value:
    return str(engine.send("GET", f"/images/{name}/json")["Id"])


def _volume(engine: Engine, name: str) -> Value:
    return json.dumps(engine.send("GET", f"/volumes/{name}")["Labels"] or {})


def _file(engine: Engine, name: str) -> Value:
    volume, _, path = name.partition("/")
    place = Path(engine.send("GET", f"/volumes/{volume}")["Mountpoint"], path)
    return place.read_bytes() if place.exists() else None


def _network(engine: Engine, name: str) -> Value:
    found = engine.send("GET", f"/networks/{name}")
    return str(found["Id"] + found["IPAM"]["Config"][0]["Subnet"])


_LOOK = {
    "container": _container,
    "written": _written,
    "policy": _policy,
    "image": _image,
    "volume": _volume,
    "file": _file,
    "network": _network,
}


def _half_made(engine: Engine) -> Iterator[str]:
    """Directories of the data root that nothing owns."""
    known = {one["Id"] for one in engine.send("GET", "/containers/json", all="1")}
    for place in ("containers", "snapshots"):
        for name in _listed(f"{engine.data}/{place}"):
            if name.partition(".")[0] not in known:
                yield f"{place}/{name} is nobody's"
    for name in _listed(f"{engine.data}/volumes"):
        if name.startswith("."):
            yield f"volumes/{name} is half made"


def _listed(path: str) -> list[str]:
    return os.listdir(path) if os.path.isdir(path) else []


def _broken(engine: Engine) -> Iterator[str]:
    """Containers that cannot be started, of those that never were."""
    for one in engine.send("GET", "/containers/json", all="1"):
        name = one["Names"][0]
        try:
            details: dict[str, Any] = engine.send("GET", f"/containers/{one['Id']}/json")
            if details["State"]["Running"]:
                continue
            engine.send("POST", f"/containers/{one['Id']}/start")
        except Refused as error:
            yield f"container {name} does not start: {error}"
