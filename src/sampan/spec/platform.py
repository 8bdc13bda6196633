"""Platforms: ``os[/architecture[/variant]]``, as images and requests name them."""

from __future__ import annotations

import os
import re

from sampan.errors import InvalidArgument

_SYSTEM_WORDS = (
    "aix android darwin dragonfly freebsd illumos ios js linux netbsd openbsd plan9 solaris windows"
)
_SYSTEMS = frozenset(_SYSTEM_WORDS.split())
_ARCHITECTURE_WORDS = (
    "386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x wasm"
)
_ARCHITECTURES = frozenset(_ARCHITECTURE_WORDS.split())
_OTHER_NAMES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i686": "386",
    "armhf": "arm",
    "armel": "arm",
    "armv7l": "arm",
}
_PART = re.compile(r"[A-Za-z0-9_.-]+")


def own_architecture() -> str:
    """This machine's, in the words of images."""
    machine = os.uname().machine
    return _OTHER_NAMES.get(machine, machine)


def parse(text: str) -> tuple[str, str, str]:
    """(os, architecture, variant); this machine's for what is left out. InvalidArgument in Docker's words."""
    if not text:
        return "linux", own_architecture(), ""
    parts = text.split("/")
    for part in parts:
        if not _PART.fullmatch(part):
            raise InvalidArgument(
                f'"{part}" is an invalid component of "{text}": platform specifier component must match '
                '"^[A-Za-z0-9_.-]+$": invalid argument'
            )
    if len(parts) > 3:
        raise InvalidArgument(f'"{text}": cannot parse platform specifier: invalid argument')
    first, *rest = [_OTHER_NAMES.get(part.lower(), part.lower()) for part in parts]
    if rest:
        return first, rest[0], rest[1] if len(rest) > 1 else ""
    if first in _SYSTEMS:
        return first, own_architecture(), ""
    if first in _ARCHITECTURES:
        return "linux", first, ""
    raise InvalidArgument(f'"{text}": unknown operating system or architecture: invalid argument')


def shown(system: str, architecture: str, variant: str) -> str:
    """A platform as Docker writes it."""
    return "/".join(part for part in (system, architecture, variant) if part)


def fits(found: tuple[str, str, str], wanted: tuple[str, str, str]) -> bool:
    """Whether an image of one platform is what another means; later 32-bit ARM runs what is for earlier."""
    if found[:2] != wanted[:2]:
        return False
    if found[1] == "arm" and found[2] and wanted[2]:
        return found[2] <= wanted[2]
    return True
