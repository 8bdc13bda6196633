"""Which container is likely to be started next, so that its first process can be made ahead of need.

Most containers are started right after they are created, by clients that do the same again: the next one will
be like the last one but for its id and its range of ids. Both are settled now: the next container that is
created gets the id, and the range is the one that would be leased.

Laws: a forecast binds nobody. What comes true of it saves time, what does not costs nobody any. Who starts
containers in another order than that of their creation gets no forecasts, which would all be wrong.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sampan.errors import Failure
from sampan.sandbox.messages import RootFilesystem

if TYPE_CHECKING:
    from sampan.engine.ports import Runtime
    from sampan.engine.settings import Settings
    from sampan.engine.users import Users
    from sampan.sandbox.messages import Launch

_QUIET = 0.002
"""Seconds after a start, in which a short program ends and who waits for it is answered."""


class Forecast:
    """``take`` gives new containers their ids, ``started`` learns from each start."""

    def __init__(self, *, runtime: Runtime, users: Users, settings: Settings) -> None:
        self._runtime = runtime
        self._users = users
        self._settings = settings
        self._next = ""
        self._created = ""
        self._model: Launch | None = None
        self._due = False

    def take(self) -> str:
        """The id of a container that is created now."""
        self._created, self._next = self._next or self._settings.new_id(), ""
        return self._created

    def started(self, launch: Launch) -> None:
        """Expect another container like that of ``launch``, if it was started as soon as it was there."""
        in_turn = launch.id == self._created
        if in_turn and _can_be_expected(launch):
            self._model = launch
        if in_turn and self._model is not None and not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(_QUIET, self._tell)

    def _tell(self) -> None:
        self._due = False
        if self._model is None:
            return
        # Never one that was expected before: somebody may be removing what was made for it.
        self._next = self._settings.new_id()
        with suppress(Failure):
            self._runtime.expect(self._expected(self._model, self._next))

    def _expected(self, model: Launch, container_id: str) -> Launch:
        linux: Any = model.spec["linux"]
        base, span = self._users.likely(linux["uidMappings"][0]["size"])
        ids = [{"containerID": 0, "hostID": base, "size": span}]
        group = f"{linux['cgroupsPath'].rpartition('/')[0]}/{container_id}"
        spec: Any = {
            **model.spec,
            "linux": {**linux, "cgroupsPath": group, "uidMappings": ids, "gidMappings": ids},
        }
        return replace(
            model,
            id=container_id,
            bundle=self._settings.paths.bundle(container_id),
            state=self._settings.paths.container(container_id),
            spec=spec,
            clients=(),
        )


def _can_be_expected(launch: Launch) -> bool:
    """Whether the like of it can be made without knowing the container: in namespaces all of its own, and
    with limits that the launcher need not take for itself."""
    linux = launch.spec["linux"]
    return (
        launch.runtime is None
        and isinstance(launch.root, RootFilesystem)
        and not launch.neighbours
        and bool(linux.get("uidMappings"))
        and not any(namespace.get("path") for namespace in linux["namespaces"])
        and not launch.spec["process"].get("rlimits")
    )
