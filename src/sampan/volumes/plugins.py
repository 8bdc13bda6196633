"""Volume drivers that are processes of their own, by Docker's plugin protocol."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sampan.errors import Failure, NotFound
from sampan.plugins.calling import Plugin, PluginError, Timing, Waiting, said
from sampan.plugins.discovery import SOCKETS, SPECS, Address, Places

log = logging.getLogger(__name__)

_LONG = frozenset(("Create", "Mount", "Unmount"))
_IMPLEMENTS = "VolumeDriver"


DriverError = PluginError
"""What a driver answered that it could not do, in its words."""


class Plugins:
    """The drivers of this host. ``sockets`` and ``specs`` are directories."""

    def __init__(
        self, *, sockets: str = SOCKETS, specs: Sequence[str] = SPECS, timing: Timing | None = None
    ) -> None:
        self._places = Places(sockets=sockets, specs=specs)
        self._timing = timing or Timing()
        self._known: dict[str, Driver] = {}

    def names(self) -> list[str]:
        """Of every plugin that can be found now, volume driver or not."""
        return self._places.names()

    async def driver(self, name: str, *, patient: bool = False) -> Driver:
        """The driver of that name, which was found and said that it is one. NotFound in Docker's words.

        ``patient``: one that is not there is waited for, since volumes of its are known.
        """
        known = self._known.get(name)
        if known is not None:
            return known
        waited = Waiting(self._timing.patience if patient else 0.0)
        while True:
            address = self._places.find(name)
            if address is not None:
                break
            if not await waited.again(f"plugin {name} is not there"):
                raise NotFound(f'plugin "{name}" not found')
        driver = Driver(name, address, self._timing)
        if _IMPLEMENTS not in await driver.activate():
            raise NotFound(f'plugin "{name}" not found')
        return self._known.setdefault(name, driver)

    async def drivers(self) -> list[Driver]:
        """Every volume driver that answers."""
        found = []
        for name in self._places.names():
            try:
                found.append(await self.driver(name))
            except Failure as error:
                log.debug("plugin %s: %s", name, error)
        return found

    def forget(self, name: str) -> None:
        """Have the driver looked for and activated anew when it is next needed."""
        self._known.pop(name, None)


class Driver(Plugin):
    """One driver."""

    def __init__(self, name: str, address: Address, timing: Timing) -> None:
        super().__init__(name, address, timing)
        self._scope = ""

    async def create(self, name: str, options: dict[str, str] | None) -> None:
        await self._call("Create", {"Name": name, "Opts": options})

    async def remove(self, name: str) -> None:
        await self._call("Remove", {"Name": name})

    async def mount(self, name: str, holder: str) -> str:
        """Where on the host it is mounted now. ``holder`` says for whom; the driver counts."""
        answer = await self._call("Mount", {"Name": name, "ID": holder})
        return said(answer, "Mountpoint")

    async def unmount(self, name: str, holder: str) -> None:
        await self._call("Unmount", {"Name": name, "ID": holder})

    async def path(self, name: str) -> str:
        """Where on the host it is mounted, if it is."""
        return said(await self._call("Path", {"Name": name}), "Mountpoint")

    async def get(self, name: str) -> dict[str, Any]:
        """``{"Name", "Mountpoint", "CreatedAt", "Status"}``. DriverError for a volume that it has not."""
        found = (await self._call("Get", {"Name": name})).get("Volume")
        if not isinstance(found, dict):
            raise DriverError(f"driver {self.name} gave no volume")
        return found

    async def list(self) -> list[dict[str, Any]]:
        found = (await self._call("List", {})).get("Volumes")
        entries = found if isinstance(found, list) else []
        return [each for each in entries if isinstance(each, dict) and said(each, "Name")]

    async def scope(self) -> str:
        """``local`` or ``global``; local if it does not say."""
        if not self._scope:
            try:
                answer = (await self._call("Capabilities", {})).get("Capabilities")
            except DriverError:
                answer = None
            scope = said(answer, "Scope").lower() if isinstance(answer, dict) else ""
            self._scope = scope if scope in ("local", "global") else "local"
        return self._scope

    async def _call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        limit = self._timing.long if method in _LONG else self._timing.short
        answer = await self.ask(f"{_IMPLEMENTS}.{method}", body, limit)
        if refusal := said(answer, "Err"):
            raise DriverError(refusal)
        return answer
