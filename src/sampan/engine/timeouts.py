"""How long a container may run: an annotation, so that any client of the API can set it.

``docker run --annotation io.sampan.timeout=30s`` says what ``sampan run --timeout 30s`` says. The keeper
holds the clock: the limit counts from each start and ends the container by its stop rules, whoever lives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument
from sampan.sandbox.messages import TimeLimit
from sampan.wire import durations

if TYPE_CHECKING:
    from sampan.engine.model import Container, HostConfig

ANNOTATION = "io.sampan.timeout"

_SHORTEST = 1_000_000  # nanoseconds
_LONGEST = 1 << 62


def check(host: HostConfig) -> None:
    """Raise InvalidArgument for a limit that is none."""
    text = (host.annotations or {}).get(ANNOTATION, "")
    if not text:
        return
    try:
        duration = durations.parse(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid timeout: {error}") from error
    if not _SHORTEST <= duration <= _LONGEST:
        raise InvalidArgument(f"invalid timeout: {text} is less than 1ms or more than a container can run")


def limit_of(container: Container) -> str:
    """The limit as it was asked for; "" for none."""
    return (container.host.annotations or {}).get(ANNOTATION, "")


def for_keeper(container: Container, *, signal: int, grace: float | None) -> TimeLimit | None:
    """What the keeper has to know: when, by which signal, and the seconds until SIGKILL (None: never)."""
    text = limit_of(container)
    if not text:
        return None
    return TimeLimit(seconds=durations.parse(text) / 1e9, signal=signal, grace=grace)
