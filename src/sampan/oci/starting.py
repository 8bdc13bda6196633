"""start, and the end of a container: what a command does that loads nothing of a launch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.errors import Failure
from sampan.oci import hooks
from sampan.oci.container import Container
from sampan.oci.failure import Failed

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.spec.runtime import Spec


def start_created(root: str, container_id: str, warn: Callable[[str], None]) -> int:
    """``start``: let the program of a created container begin."""
    container = Container.load(root, container_id)
    status = container.status()
    if status == "stopped":
        raise Failed("cannot start a container that has stopped")
    if status != "created":
        raise Failed("cannot start an already running container")
    container.release()
    after_start(container, warn)
    return 0


def after_start(container: Container, warn: Callable[[str], None]) -> None:
    """What follows the program's start."""
    _forgiving(container.spec, "poststart", container.state("running"), warn)


def destroy(container: Container, warn: Callable[[str], None]) -> None:
    """End what is left of a container whose first process is dead, and forget it."""
    group = container.cgroup
    group.kill()
    try:
        group.remove()
    except Failure as error:
        raise Failed(str(error)) from error
    state = container.state("stopped")
    container.remove()
    _forgiving(container.spec, "poststop", state, warn)


def _forgiving(spec: Spec, kind: str, state: dict[str, Any], warn: Callable[[str], None]) -> None:
    """Run hooks whose failure is told and changes nothing."""
    for hook in hooks.of(spec, kind):
        try:
            hooks.run_all([hook], kind, state)
        except Failed as error:
            warn(str(error))
