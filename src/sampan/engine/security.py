"""``--security-opt``, read in Docker's grammar: key=value, or the older key:value.

``parse`` reads; ``check`` refuses what this host lacks, and says what that is. "Do without" (unconfined,
disable) is fine everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from sampan import errors
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from sampan.engine.host import HostFacts

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))

UNCONFINED = "unconfined"
_BARE = frozenset(("no-new-privileges", "writable-cgroups"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityOptions:
    """``seccomp`` is None (the default profile), "unconfined", or a profile as a JSON document; ``apparmor``
    a profile's name, "unconfined" or empty; ``labels`` are SELinux's, without "disable"."""

    seccomp: str | None = None
    no_new_privileges: bool = False
    writable_cgroups: bool = False
    apparmor: str = ""
    labels: tuple[str, ...] = ()


def parse(options: Iterable[str]) -> SecurityOptions:
    """InvalidArgument in Docker's words."""
    seccomp: str | None = None
    switches = dict.fromkeys(_BARE, False)
    apparmor = ""
    labels: list[str] = []
    for option in options:
        if option == "no-new-privileges":
            switches[option] = True
            continue
        if option == "disable":
            continue
        mark = "=" if "=" in option else ":"
        key, found, value = option.partition(mark)
        if not found:
            raise InvalidArgument(f'invalid --security-opt 1: "{option}"')
        if key == "seccomp":
            seccomp = _profile(value)
        elif key in _BARE:
            if value not in _TRUE | _FALSE:
                raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
            switches[key] = value in _TRUE
        elif key == "apparmor":
            apparmor = value
        elif key == "label":
            labels += [value] if value != "disable" else []
        else:
            raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
    return SecurityOptions(
        seccomp=seccomp,
        no_new_privileges=switches["no-new-privileges"],
        writable_cgroups=switches["writable-cgroups"],
        apparmor=apparmor,
        labels=tuple(labels),
    )


def check(options: Iterable[str], facts: HostFacts) -> None:
    """Raise for options that make no sense, and for those that this host has nothing to serve with."""
    found = parse(options)
    if found.apparmor not in ("", UNCONFINED) and not facts.apparmor:
        raise InvalidArgument("--security-opt apparmor: AppArmor is not enabled on this host")
    if found.labels and not facts.selinux:
        raise InvalidArgument("--security-opt label: SELinux is not enabled on this host")
    if found.labels:
        raise errors.NotImplemented(
            "--security-opt label is not offered by this engine; use --security-opt label=disable"
        )


def _profile(value: str) -> str | None:
    if value in ("builtin", "default"):
        return None
    if value == UNCONFINED:
        return value
    try:
        document = msgspec.json.decode(value)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidArgument(f"decoding seccomp profile failed: {error}") from error
    if not isinstance(document, dict):
        raise InvalidArgument("decoding seccomp profile failed: it is not an object")
    return value
