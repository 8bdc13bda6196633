"""The load as a table: what a client may do now, and how often; a mix weighs the columns."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos import containers, images
from tests.chaos.clients import Client
from tests.chaos.model import CREATED, EXITED, PAUSED, RESTARTING, RUNNING, Box

MOST_IMAGES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """``ready`` says whether the client has what it takes."""

    column: str
    weight: int
    ready: Callable[[Client], object]
    do: Callable[[Client], object]


def _room(client: Client) -> bool:
    return len(client.has.boxes) < containers.MOST_BOXES


def _few_images(client: Client) -> bool:
    return len(client.has.images) < MOST_IMAGES


def _still(client: Client) -> list[Box]:
    return client.boxes(CREATED, EXITED, RUNNING, policy=False, harmed=False)


def _endless(client: Client) -> object:
    return [box for box in client.boxes(RUNNING, policy=False) if box.turns < 0]


def _connectable(client: Client) -> object:
    return client.settled("networks") and client.boxes(CREATED, EXITED, RUNNING, policy=False)


OPERATIONS: dict[str, Operation] = {
    name: Operation(column=column, weight=weight, ready=ready, do=do)
    for name, column, weight, ready, do in (
        ("run -d", "containers", 8, _room, containers.run),
        ("create", "containers", 3, _room, containers.create),
        ("start", "containers", 6, lambda c: c.boxes(CREATED, EXITED), containers.start),
        ("stop", "containers", 4, lambda c: c.boxes(RUNNING, RESTARTING, EXITED), containers.stop),
        ("kill", "containers", 3, lambda c: c.boxes(RUNNING, policy=False), containers.kill),
        ("restart", "containers", 2, lambda c: c.boxes(RUNNING, EXITED), containers.restart),
        ("pause", "containers", 2, _endless, containers.pause),
        ("unpause", "containers", 6, lambda c: c.boxes(PAUSED), containers.unpause),
        ("rm", "containers", 4, lambda c: c.has.boxes, containers.remove),
        ("run --rm", "containers", 4, lambda _: True, containers.run_rm),
        ("exec", "containers", 4, _endless, containers.execute),
        ("logs -f", "containers", 1, lambda c: [b for b in c.boxes(RUNNING, policy=False) if not b.harmed],
         containers.follow_logs),
        ("events", "containers", 1, lambda _: True, containers.hear_events),
        ("cp in", "files", 4, lambda c: c.boxes(CREATED, EXITED, RUNNING, policy=False), containers.copy_in),
        ("cp out", "files", 3,
         lambda c: [b for b in _still(c) if b.words], containers.copy_out),
        ("export", "files", 1, _still, images.export),
        ("network create", "networks", 4, lambda c: len(c.has.networks) < 2, containers.NETWORK.create),
        ("network connect", "networks", 5, _connectable, containers.connect),
        ("network disconnect", "networks", 3, containers.connected, containers.disconnect),
        ("network rm", "networks", 2, containers.NETWORK.removable, containers.NETWORK.remove),
        ("volume create", "networks", 3, lambda c: len(c.has.volumes) < 2, containers.VOLUME.create),
        ("volume rm", "networks", 1, containers.VOLUME.removable, containers.VOLUME.remove),
        ("prune", "networks", 1, lambda _: True, containers.prune),
        ("build", "images", 4, _few_images, images.build),
        ("load", "images", 4, _few_images, images.load),
        ("import", "images", 2, _few_images, images.bring_in),
        ("commit", "images", 3, lambda c: _few_images(c) and _still(c), images.commit),
        ("tag", "images", 2, lambda c: _few_images(c) and c.settled("images"), images.tag),
        ("rmi", "images", 4, images.removable, images.remove_image),
        ("save", "images", 2, lambda c: c.settled("images"), images.save),
        ("push", "images", 3, lambda c: _few_images(c) and c.settled("images"), images.push),
        ("pull", "images", 4, lambda c: _few_images(c) and images.pullable(c), images.pull),
    )
}  # fmt: skip

PROMISES = (
    *("create", "rm", "start", "stop", "restart", "network create", "network rm", "network connect"),
    *("network disconnect", "volume create", "volume rm", "prune", "build", "load", "import", "commit"),
    *("tag", "rmi", "pull"),
)
"""What a daemon is killed over in the moment in which it is answered."""
VISITED = ("cp in", "cp out", "export", "commit", "build", "load", "import", "pull", "save")
"""What workers do."""

MIXES: dict[str, dict[str, int]] = {
    "even": {},
    "containers": {"containers": 4, "files": 2},
    "images": {"images": 5, "files": 2},
    "networks": {"networks": 5, "containers": 2},
}


def choose(client: Client, dice: random.Random, mix: str) -> str:
    """The next operation of a client."""
    weights = MIXES[mix]
    ready = [name for name, operation in OPERATIONS.items() if operation.ready(client)]
    return dice.choices(
        ready, [OPERATIONS[name].weight * weights.get(OPERATIONS[name].column, 1) for name in ready]
    )[0]
