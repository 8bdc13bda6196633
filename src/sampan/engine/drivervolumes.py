"""Volumes that plugins keep: what a driver is told and asked, and its failures in Docker's words.

Law: the row of such a volume says whose it is and what labels it was given; everything else is the driver's
to say, each time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from sampan.engine.model.volumes import LOCAL, Volume
from sampan.errors import Conflict, Failure, Internal, NotFound, Unavailable
from sampan.volumes.plugins import DriverError

if TYPE_CHECKING:
    from sampan.volumes.plugins import Driver, Plugins


class DriverVolumes:
    """The drivers of ``plugins`` at work."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins

    async def create(self, name: str, driver_name: str, options: Mapping[str, str] | None) -> str:
        """Have it made, unless the driver has it already; the scope of what the driver makes."""
        with _driver_errors(f"create {name}"):
            driver = await self._driver(driver_name)
            scope = await driver.scope()
            if not await _has(driver, name):
                try:
                    await driver.create(name, dict(options) if options else None)
                except DriverError as error:
                    raise DriverError(f"VolumeDriver.Create: {error}") from error
        return scope

    async def remove(self, volume: Volume) -> None:
        """Have it removed. NotFound or Unavailable if the driver is not there."""
        with _driver_errors(f"remove {volume.name}"):
            driver = await self._driver(volume.driver)
            try:
                await driver.remove(volume.name)
            except DriverError as error:
                if await _has(driver, volume.name):
                    raise DriverError(f"VolumeDriver.Remove: {error}") from error

    async def told(self, volume: Volume) -> Volume:
        """A known volume with what its driver says of it now."""
        with _driver_errors(f"get {volume.name}"):
            driver = await self._driver(volume.driver)
            try:
                found = _volume(driver, await driver.get(volume.name), await driver.scope())
            except DriverError as error:
                raise NotFound(f"VolumeDriver.Get: {error}") from error
        return _merged(volume, found)

    async def search(self, name: str) -> Volume | None:
        """A volume that a driver has made by itself."""
        for driver in await self._plugins.drivers():
            with contextlib.suppress(Failure):
                return _volume(driver, await driver.get(name), await driver.scope())
        return None

    async def survey(self, known: Iterable[Volume]) -> tuple[list[Volume], list[str]]:
        """The known volumes that are still there and the others that drivers have; a warning for each driver
        that does not answer, whose known volumes are taken to be there."""
        found = {volume.name: volume for volume in known}
        warnings: list[str] = []
        drivers = {volume.driver for volume in found.values()} - {LOCAL}
        for name in sorted({*self._plugins.names(), *drivers}):
            try:
                driver = await self._plugins.driver(name)
                scope, listed = await driver.scope(), await driver.list()
            except Failure as error:
                if name in drivers or not isinstance(error, NotFound):
                    warnings.append(f"list {name}: error looking up volume plugin {name}: {error}")
                continue
            there = {told.name: told for told in (_volume(driver, each, scope) for each in listed)}
            for volume in [volume for volume in found.values() if volume.driver == name]:
                told = there.pop(volume.name, None)
                if told is None:
                    del found[volume.name]
                else:
                    found[volume.name] = _merged(volume, told)
            found = {**there, **found}
        return list(found.values()), warnings

    async def _driver(self, name: str) -> Driver:
        try:
            return await self._plugins.driver(name)
        except (NotFound, Unavailable) as error:
            raise type(error)(f"error looking up volume plugin {name}: {error}") from error


def _volume(driver: Driver, told: Mapping[str, Any], scope: str) -> Volume:
    """A volume as its driver describes it."""
    mountpoint, status = told.get("Mountpoint"), told.get("Status")
    return Volume(
        name=str(told.get("Name") or ""),
        mountpoint=mountpoint if isinstance(mountpoint, str) else "",
        created_ns=0,
        labels=None,
        driver=driver.name,
        scope=scope,
        status=status if isinstance(status, dict) else None,
    )


def _merged(known: Volume, told: Volume) -> Volume:
    return replace(known, mountpoint=told.mountpoint, scope=told.scope, status=told.status)


async def _has(driver: Driver, name: str) -> bool:
    try:
        await driver.get(name)
    except DriverError:
        return False
    return True


@contextlib.contextmanager
def _driver_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (Conflict, NotFound, Unavailable, Internal) as error:
        raise type(error)(f"{what}: {error}") from error
