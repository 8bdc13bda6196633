"""``--security-opt``, read in Docker's grammar: key=value, or the older key:value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from sampan import errors
from sampan.errors import InvalidArgument

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))

UNCONFINED = "unconfined"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityOptions:
    """``seccomp`` is None (the default profile), "unconfined", or a profile as a JSON document."""

    seccomp: str | None = None
    no_new_privileges: bool = False
    apparmor: str = ""


def parse(options: Iterable[str], *, apparmor_enabled: bool = False) -> SecurityOptions:
    """InvalidArgument in Docker's words; labels are accepted and, without SELinux, mean nothing."""
    seccomp: str | None = None
    no_new_privileges = False
    apparmor = ""
    for option in options:
        if option == "no-new-privileges":
            no_new_privileges = True
            continue
        if option == "disable":
            continue
        mark = "=" if "=" in option else ":"
        key, found, value = option.partition(mark)
        if not found:
            raise InvalidArgument(f'invalid --security-opt 1: "{option}"')
        if key == "seccomp":
            seccomp = _profile(value)
        elif key == "no-new-privileges":
            if value not in _TRUE | _FALSE:
                raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
            no_new_privileges = value in _TRUE
        elif key == "apparmor":
            apparmor = value
        elif key != "label":
            raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
    if apparmor not in ("", UNCONFINED):
        if not apparmor_enabled:
            raise InvalidArgument("--security-opt apparmor: AppArmor is not enabled on this host")
        raise errors.NotImplemented("--security-opt apparmor=PROFILE is not offered by this engine yet")
    return SecurityOptions(seccomp=seccomp, no_new_privileges=no_new_privileges, apparmor=apparmor)


def _profile(value: str) -> str | None:
    if value in ("builtin", "default"):
        return None
    if value == UNCONFINED:
        return value
    try:
        document = msgspec.json.decode(value)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"decoding seccomp profile failed: {error}") from error
    if not isinstance(document, dict):
        raise InvalidArgument("decoding seccomp profile failed: it is not an object")
    return value
