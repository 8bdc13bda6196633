"""Which compiled seccomp filter a container gets: compiled once for a profile and a set of capabilities."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from sampan.linux import kernel
from sampan.sandbox.seccomp import cached_filter
from sampan.spec import seccomp, seccomp_default

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.spec.runtime import Seccomp

_REMEMBERED = 64


class Filters:
    """Compiled filters in ``directory``. The paths of recent ones are remembered."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._paths: dict[tuple[str | None, frozenset[str]], str] = {}
        self._compiling = asyncio.Lock()

    async def path(self, profile: str | None, capabilities: frozenset[str]) -> str:
        """See ``ports.SeccompFilters``."""
        key = (profile, capabilities)
        known = self._known(key)
        if known is not None:
            return known
        # Containers that start together want the same one: it is compiled for the first of them.
        async with self._compiling:
            path = self._known(key)
            if path is None:
                path = await asyncio.to_thread(self._compile, profile, capabilities)
                if len(self._paths) >= _REMEMBERED:
                    self._paths.clear()
                self._paths[key] = path
            return path

    def rules(self, profile: str | None, capabilities: Iterable[str]) -> Seccomp:
        """See ``ports.SeccompFilters``."""
        document = seccomp_default.default_profile() if profile is None else seccomp.parse(profile)
        architecture = os.uname().machine
        return seccomp.resolve(
            document, capabilities=capabilities, architecture=architecture, kernel=kernel.version()
        )

    def _known(self, key: tuple[str | None, frozenset[str]]) -> str | None:
        path = self._paths.get(key)
        return path if path is not None and os.path.exists(path) else None

    def _compile(self, profile: str | None, capabilities: frozenset[str]) -> str:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        document = seccomp_default.default_profile() if profile is None else seccomp.parse(profile)
        return cached_filter(self._directory, document, capabilities)
