"""Why a step of a build was not taken from the cache: what went into it is compared with what went in before.

For each Dockerfile of each folder the inputs of its steps are kept as they were when it was last built. A
step is compared with the one of the same words in the same stage, or else with the one that stood in its
place.

Laws: what is kept of a value is a digest; it is advice, and nothing but advice: losing it loses nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress

import msgspec

KEPT = 200
"""Dockerfiles of which steps are kept."""
_SHOWN = 5


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """What went into a step. ``values`` are digests of arguments and variables by name, ``files`` by path."""

    stage: str
    number: int
    words: str
    parent: str
    values: Mapping[str, str] = msgspec.field(default_factory=dict)
    files: Mapping[str, str] = msgspec.field(default_factory=dict)
    other: Mapping[str, str] = msgspec.field(default_factory=dict)


_DECODER = msgspec.msgpack.Decoder(list[Inputs])


class Explanations:
    """Below ``root``, which need not be there. Methods block."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._last: dict[str, list[Inputs]] = {}

    def before(self, place: str) -> list[Inputs]:
        """The inputs of the last build of ``place``: a folder with a Dockerfile."""
        found = self._last.get(place)
        if found is None:
            try:
                with open(self._path(place), "rb") as file:
                    found = _DECODER.decode(file.read())
            except (OSError, msgspec.MsgspecError):
                found = []
        return found

    def keep(self, place: str, inputs: list[Inputs]) -> None:
        """Remember these, unless they are the same as before."""
        if self._last.get(place) == inputs:
            return
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        path = self._path(place)
        temporary = f"{path}.new"
        with open(temporary, "wb") as file:
            file.write(msgspec.msgpack.encode(inputs))
        os.rename(temporary, path)
        self._last.pop(place, None)
        self._last[place] = inputs
        while len(self._last) > _SHOWN:
            del self._last[next(iter(self._last))]
        self._trim()

    def _trim(self) -> None:
        entries = list(os.scandir(self._root))
        if len(entries) > KEPT:
            entries.sort(key=lambda entry: entry.stat().st_mtime_ns)
            for entry in entries[: len(entries) - KEPT]:
                with suppress(FileNotFoundError):
                    os.unlink(entry.path)

    def _path(self, place: str) -> str:
        return f"{self._root}/{hashlib.sha256(place.encode('utf-8', 'surrogateescape')).hexdigest()}"


def reasons(now: Inputs, before: Iterable[Inputs], *, no_cache: bool) -> list[str]:
    """Why the step ran, one reason a line."""
    if no_cache:
        return ["--no-cache was given"]
    known = [one for one in before if one.stage == now.stage]
    if not known:
        return ["no build of this stage is known to compare with"]
    same = [one for one in known if one.words == now.words]
    if not same:
        there = next((one for one in known if one.number == now.number), None)
        return [
            f"the instruction is new; in its place was: {there.words}" if there else "the instruction is new"
        ]
    old = min(same, key=lambda one: abs(one.number - now.number))
    found: list[str] = []
    if old.parent != now.parent:
        found.append(
            "parent: the step before it came to other files" if now.number else "parent: another base"
        )
    found += [f"{name}: another value" for name in _differing(old.values, now.values)]
    found += _files(old.files, now.files)
    found += [f"{name}: changed" for name in _differing(old.other, now.other)]
    return found or ["it was built before, but the cache does not have it any more"]


def _differing(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]


def _files(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    differing = _differing(old, new)
    shown = [
        f"file {path}: {'new' if path not in old else 'gone' if path not in new else 'changed'}"
        for path in differing[:_SHOWN]
    ]
    more = len(differing) - len(shown)
    return [*shown, f"and {more} more files"] if more else shown
