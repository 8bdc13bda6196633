"""A container's life as a table of legal moves, and what the engine answers to the illegal ones.

    created ──START──► running ──PAUSE──► paused
       ▲                │  ▲ └──UNPAUSE────┘ │
       │               DIE └─START─┐        DIE
    (create)            ▼          │         │
                      exited ──────┘ ◄───────┘
    running, paused ──RECOIL──► restarting ──START──► running    (exited, too, of a start that was cut short)
                                           ──REST──► exited
    created, exited, dead ──REMOVE──► removing ──FAIL──► dead

``RECOIL`` is an end that the restart policy answers by another start; ``REST`` gives that start up.

Law: a move that the table does not have raises Conflict in Docker's words and changes nothing. "Already
running" and "already stopped" are answers, not moves; callers test for them first.
"""

from __future__ import annotations

import enum

from sampan.engine.model import Container, Status
from sampan.errors import Conflict


class Move(enum.Enum):
    START = "start"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    KILL = "kill"
    DIE = "die"
    RECOIL = "recoil"
    REST = "rest"
    REMOVE = "remove"
    FAIL = "fail"  # a removal that could not be finished
    EXEC = "exec"
    RESIZE = "resize"


MOVES: dict[tuple[Status, Move], Status] = {
    (Status.CREATED, Move.START): Status.RUNNING,
    (Status.EXITED, Move.START): Status.RUNNING,
    (Status.RUNNING, Move.PAUSE): Status.PAUSED,
    (Status.PAUSED, Move.UNPAUSE): Status.RUNNING,
    (Status.RUNNING, Move.KILL): Status.RUNNING,
    (Status.PAUSED, Move.KILL): Status.PAUSED,
    (Status.RESTARTING, Move.KILL): Status.RESTARTING,
    (Status.RUNNING, Move.DIE): Status.EXITED,
    (Status.PAUSED, Move.DIE): Status.EXITED,
    (Status.RUNNING, Move.RECOIL): Status.RESTARTING,
    (Status.PAUSED, Move.RECOIL): Status.RESTARTING,
    (Status.EXITED, Move.RECOIL): Status.RESTARTING,
    (Status.RESTARTING, Move.START): Status.RUNNING,
    (Status.RESTARTING, Move.REST): Status.EXITED,
    (Status.RUNNING, Move.EXEC): Status.RUNNING,
    (Status.RUNNING, Move.RESIZE): Status.RUNNING,
    (Status.PAUSED, Move.RESIZE): Status.PAUSED,
    (Status.CREATED, Move.REMOVE): Status.REMOVING,
    (Status.EXITED, Move.REMOVE): Status.REMOVING,
    (Status.DEAD, Move.REMOVE): Status.REMOVING,
    (Status.REMOVING, Move.FAIL): Status.DEAD,
}

_NOT_RUNNING = "container {id} is not running"
_RESTARTING = "Container {id} is restarting, wait until the container is running"

# (move, status) first, then (move, None) for every other status.
REFUSALS: dict[tuple[Move, Status | None], str] = {
    (Move.START, Status.PAUSED): "cannot start a paused container, try unpause instead",
    (Move.START, None): "container is marked for removal and cannot be started",
    (Move.PAUSE, Status.PAUSED): "container {id} is already paused",
    (Move.PAUSE, Status.RESTARTING): _RESTARTING,
    (Move.PAUSE, None): _NOT_RUNNING,
    (Move.UNPAUSE, None): "container {id} is not paused",
    (Move.KILL, None): "cannot kill container: {ref}: container {id} is not running",
    (Move.EXEC, Status.PAUSED): "container {id} is paused, unpause the container before exec",
    (Move.EXEC, Status.RESTARTING): _RESTARTING,
    (Move.EXEC, None): _NOT_RUNNING,
    (Move.RESIZE, None): _NOT_RUNNING,
    (Move.REMOVE, Status.RUNNING): (
        'cannot remove container "{name}": container is running: '
        "stop the container before removing or force remove"
    ),
    (Move.REMOVE, Status.PAUSED): (
        'cannot remove container "{name}": container is paused and must be unpaused first'
    ),
    (Move.REMOVE, Status.RESTARTING): (
        'cannot remove container "{name}": container is restarting: '
        "stop the container before removing or force remove"
    ),
    (Move.REMOVE, Status.REMOVING): "removal of container {ref} is already in progress",
}


def after(container: Container, move: Move, *, ref: str = "") -> Status:
    """The status that ``move`` leads to; Conflict when it is not legal now. ``ref`` is the user's word."""
    status = container.state.status
    target = MOVES.get((status, move))
    if target is not None:
        return target
    text = REFUSALS.get((move, status)) or REFUSALS.get((move, None)) or "container {id} is {status}"
    raise Conflict(
        text.format(id=container.id, name=container.name, ref=ref or container.name, status=status)
    )
