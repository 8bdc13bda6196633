"""What can be idmapped on this host: found out by doing it, with a user namespace made for that.

What is said is a reason why not, without an end of sentence; the empty text means that it can be.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from sampan.linux import kernel, mount
from sampan.linux.userns import new_user_namespace

_OVERLAY_ON_IDMAPPED = (5, 19)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMaps:
    """``lacking``: why no container at all can have ids of its own. ``refusal`` asks for one path."""

    lacking: str = ""
    refusal: Callable[[str], str] = lambda _path: ""


EVERYTHING = IdMaps()


def probe(data_root: str, *, first: int, count: int) -> IdMaps:
    """Try it on the engine's own data, with ids that containers will get. Takes a few milliseconds."""
    if kernel.version() < _OVERLAY_ON_IDMAPPED:
        return IdMaps(lacking="Linux before 5.19 cannot lay idmapped directories over each other")
    try:
        namespace = new_user_namespace(first, count)
    except OSError as error:
        return IdMaps(lacking=f"user namespaces cannot be made here: {(error.strerror or '').lower()}")
    refusals = _Refusals(namespace)
    if refused := refusals.of(data_root):
        return IdMaps(lacking=refused)
    return IdMaps(refusal=refusals.of)


class _Refusals:
    """``namespace`` is the descriptor of a user namespace, kept for good."""

    def __init__(self, namespace: int) -> None:
        self._namespace = namespace
        # File systems that can be. Not those that cannot: their numbers may go to others.
        self._able: set[int] = set()

    def of(self, path: str) -> str:
        """A path that is not there refuses nothing. What is mounted below it is not looked at."""
        with suppress(OSError):
            device = os.stat(path).st_dev
            if device in self._able:
                return ""
            if not self._can(path):
                return f"{path} cannot be given a container's own user ids"
            self._able.add(device)
        return ""

    def _can(self, path: str) -> bool:
        tree = mount.open_tree(path)
        try:
            mount.mount_setattr(tree, userns_fd=self._namespace)
            return True
        except OSError:
            return False
        finally:
            os.close(tree)
