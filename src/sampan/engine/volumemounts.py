"""Who uses which volume, and what is mounted for that.

Theory: a volume without options is a directory and costs nothing to use. One with options is mounted by the
first who uses it and unmounted after the last; a plugin is told of each who comes and goes, and counts. A
holder is a container's id while it runs, or a word for some other use.

Laws: whoever asks to hold is held until ``release``, which may be called any number of times; what a killed
daemon left is known by its marks, and ``settle`` gives back what nobody holds any more.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from sampan.engine.model.volumes import LOCAL
from sampan.errors import Conflict, Failure, Internal, InvalidArgument, Unavailable
from sampan.images.turns import Turns
from sampan.volumes.mounting import Marks, is_mounted, mount_volume, unmount_volume

if TYPE_CHECKING:
    from sampan.engine.model.volumes import Volume
    from sampan.volumes.local import LocalVolumes
    from sampan.volumes.plugins import Plugins

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A volume in use: where each of its holders has it."""

    volume: Volume
    places: dict[str, str] = field(default_factory=dict)


class VolumeMounts:
    """``marks`` tell the next daemon what this one has mounted, and for whom."""

    def __init__(self, *, local: LocalVolumes, plugins: Plugins, marks: Marks) -> None:
        self._local = local
        self._plugins = plugins
        self._marks = marks
        self._held: dict[str, _Held] = {}
        self._turns = Turns()

    def used(self, name: str) -> bool:
        """Whether somebody holds the volume, if it is one that is mounted."""
        return name in self._held

    async def hold(self, volume: Volume, holder: str) -> str:
        """The host's directory of the volume's data, there until the holder is released. Idempotent.

        InvalidArgument in Docker's words where it cannot be mounted.
        """
        name = volume.name
        if volume.plain:
            return self._directory(name)
        async with self._turns.of(name):
            held = self._held.setdefault(name, _Held(volume=volume))
            if holder in held.places:
                return held.places[holder]
            try:
                self._marks.add(name, holder)
                path = await self._mount(volume, holder)
                held.places[holder] = path
            except BaseException:
                if not held.places:
                    del self._held[name]
                self._marks.remove(name, holder)
                raise
            return path

    async def release(self, holder: str) -> None:
        """Give back all that the holder has. Failures are logged."""
        for held in [held for held in self._held.values() if holder in held.places]:
            await self._give_back(held.volume, holder)

    async def settle(self, volumes: Iterable[Volume], living: Iterable[str]) -> None:
        """Take up what ``living`` containers hold, and give back what others held. Once, at the start."""
        marks, alive = self._marks.all(), set(living)
        dead: list[tuple[Volume, str]] = []
        known = {volume.name: volume for volume in volumes if not volume.plain}
        for name, holders in marks.items():
            volume = known.get(name)
            for holder in holders:
                if volume is None:
                    self._marks.remove(name, holder)
                    continue
                held = self._held.setdefault(name, _Held(volume=volume))
                held.places[holder] = volume.mountpoint
            if volume is not None:
                dead += ((volume, holder) for holder in holders - alive)
        # Together: a driver that is not there is waited for.
        await asyncio.gather(*(self._give_back(volume, holder) for volume, holder in dead))
        for volume in known.values():
            # Killed between the two, or its marks were lost.
            if volume.driver == LOCAL and not self.used(volume.name):
                await _aside(unmount_volume, volume.mountpoint)

    async def _give_back(self, volume: Volume, holder: str) -> None:
        name = volume.name
        async with self._turns.of(name):
            held = self._held.get(name)
            if held is None or held.places.pop(holder, None) is None:
                return
            if not held.places:
                del self._held[name]
            try:
                if volume.driver != LOCAL:
                    await (await self._plugins.driver(volume.driver)).unmount(name, holder)
                elif not held.places:
                    await _aside(unmount_volume, volume.mountpoint)
            except Failure as error:
                log.warning("volume %s could not be unmounted: %s", name, error)
            finally:
                self._marks.remove(name, holder)

    async def _mount(self, volume: Volume, holder: str) -> str:
        if volume.driver != LOCAL:
            return await self._mount_by_plugin(volume, holder)
        await _aside(self._mount_once, volume)
        return volume.mountpoint

    def _mount_once(self, volume: Volume) -> None:
        # What is mounted is not looked at: its server may be gone.
        if not is_mounted(volume.mountpoint):
            mount_volume(volume.options or {}, self._directory(volume.name))

    async def _mount_by_plugin(self, volume: Volume, holder: str) -> str:
        wrong = f"error while mounting volume '{volume.mountpoint}': "
        try:
            driver = await self._plugins.driver(volume.driver, patient=True)
            path = await driver.mount(volume.name, holder)
        except Unavailable as error:
            self._plugins.forget(volume.driver)
            raise Unavailable(f"{wrong}{error}") from error
        except Conflict as error:
            raise InvalidArgument(f"{wrong}VolumeDriver.Mount: {error}") from error
        if not path.startswith("/"):
            raise InvalidArgument(f"{wrong}the driver gave no directory")
        return path

    def _directory(self, name: str) -> str:
        try:
            return self._local.ensure_directory(name)
        except OSError as error:
            raise Internal(f"mount volume {name}: {error.strerror or error}") from error


async def _aside(work: Callable[[T], None], on: T) -> None:
    """Do it in a thread of its own: a server that is gone keeps nobody else's work waiting."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if over.done():
            return
        if error is None:
            over.set_result(None)
        else:
            over.set_exception(error)

    def run() -> None:
        found: BaseException | None = None
        try:
            work(on)
        except BaseException as error:
            found = error
        with suppress(RuntimeError):  # the loop is over
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=run, name="mount", daemon=True).start()
    await over
