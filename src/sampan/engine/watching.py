"""Being woken when files in a directory change. One inotify descriptor for the whole engine.

A user has few inotify instances (128 by default), so followers share one; a watch is kept while somebody
looks at its directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from sampan.linux import inotify

_MASK = inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO | inotify.IN_MOVED_FROM


class Watch:
    """Changes of one directory. ``changed`` returns at once if something happened since the last call."""

    def __init__(self, watching: Watching, number: int) -> None:
        self._watching = watching
        self._number = number
        self._event = asyncio.Event()

    async def changed(self) -> None:
        await self._event.wait()
        self._event.clear()

    def wake(self) -> None:
        self._event.set()

    def close(self) -> None:
        self._watching.forget(self._number, self)


class Watching:
    """Hands out watches; ``close`` it when the engine stops."""

    def __init__(self) -> None:
        self._fd = -1
        self._watches: dict[int, set[Watch]] = {}

    def directory(self, path: str) -> Watch:
        """Watch a directory. Raises OSError when it is not there."""
        if self._fd < 0:
            self._fd = inotify.init()
            asyncio.get_running_loop().add_reader(self._fd, self._read)
        number = inotify.add_watch(self._fd, path, _MASK | inotify.IN_ONLYDIR)
        watch = Watch(self, number)
        self._watches.setdefault(number, set()).add(watch)
        return watch

    def forget(self, number: int, watch: Watch) -> None:
        watches = self._watches.get(number)
        if watches is None:
            return
        watches.discard(watch)
        if not watches:
            del self._watches[number]
            with contextlib.suppress(OSError):  # the directory is gone, its watch too
                inotify.remove_watch(self._fd, number)

    def close(self) -> None:
        """Stop watching. Idempotent."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        for change in inotify.parse(data):
            lost = change.mask & inotify.IN_Q_OVERFLOW
            everyone = self._watches.values() if lost else [self._watches.get(change.watch, set())]
            for watches in everyone:
                for watch in watches:
                    watch.wake()
            if change.mask & inotify.IN_IGNORED:
                self._watches.pop(change.watch, None)
