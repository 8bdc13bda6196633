"""Seccomp profiles in Docker's form, and what becomes of one for a given container.

A profile is the OCI form with three additions: ``archMap`` instead of ``architectures``, ``name`` beside
``names``, and conditions on a rule: ``includes`` (all must hold) and ``excludes`` (none may hold) of
capabilities in the bounding set, of the host's architecture, of the kernel's version. ``parse`` reads one,
``resolve`` decides the conditions and gives the plain OCI form.

Sources: OCI runtime specification, config-linux.md; Docker's documentation of seccomp profiles.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument
from sampan.spec import foreign
from sampan.spec.seccomp_default import default_profile

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TypedDict

    from sampan.spec.runtime import Seccomp, SeccompArgument, SeccompRule

    class Conditions(TypedDict, total=False):
        caps: list[str]
        arches: list[str]
        minKernel: str

    class Rule(SeccompRule, total=False):
        name: str
        comment: str
        includes: Conditions
        excludes: Conditions

    class ArchitectureFamily(TypedDict):
        architecture: str
        subArchitectures: list[str]

    class Profile(TypedDict, total=False):
        defaultAction: str
        defaultErrnoRet: int
        architectures: list[str]
        archMap: list[ArchitectureFamily]
        flags: list[str]
        syscalls: list[Rule]


__all__ = ["ACTIONS", "OPERATORS", "default_profile", "parse", "resolve"]

ACTIONS = (
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
)
OPERATORS = (
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
)
# Synchronising threads changes nothing for a process with one; the speculation barrier is always left off.
FLAGS = ("SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW")

# (machine as uname says, Go's name, libseccomp's name)
_HOSTS = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
}
_MAXIMUM_ERRNO = 4095


def parse(text: str | bytes) -> Profile:
    """Read a profile. Raises ``InvalidArgument``, which says where in the document what is wrong.

    The answer holds nothing but known fields of the right types and ranges. Calls that nobody knows are kept:
    they may exist on another kernel.
    """
    try:
        document = foreign.decode(text)
    except ValueError as error:
        raise _bad(str(error)) from error
    top = _object(document, "profile")
    if top.get("architectures") and top.get("archMap"):
        raise InvalidArgument(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, "
            "use either 'architectures' or 'archMap'"
        )
    if top.get("listenerPath"):
        raise _bad("listenerPath: notifying a listener is not supported")
    profile: Profile = {
        "defaultAction": _word(top.get("defaultAction"), ACTIONS, "defaultAction"),
        "syscalls": [
            _rule(item, f"syscalls[{index}]") for index, item in enumerate(_list(top, "syscalls", ""))
        ],
    }
    if top.get("defaultErrnoRet") is not None:
        profile["defaultErrnoRet"] = _number(top["defaultErrnoRet"], "defaultErrnoRet", _MAXIMUM_ERRNO)
    if top.get("architectures"):
        profile["architectures"] = _strings(top, "architectures", "")
    if top.get("archMap"):
        profile["archMap"] = [
            _family(item, f"archMap[{index}]") for index, item in enumerate(_list(top, "archMap", ""))
        ]
    if top.get("flags"):
        profile["flags"] = [_word(flag, FLAGS, "flags") for flag in _strings(top, "flags", "")]
    return profile


def resolve(
    profile: Profile, *, capabilities: Iterable[str], architecture: str, kernel: tuple[int, int]
) -> Seccomp:
    """The profile for a container with this bounding set on a host of this ``architecture`` (uname's word)
    and kernel version: conditions decided, architectures as a list with the host's own first.

    Raises ``InvalidArgument`` for an architecture without a table of system calls.
    """
    if architecture not in _HOSTS:
        raise InvalidArgument(f"seccomp: the architecture {architecture} is not supported")
    goarch, native = _HOSTS[architecture]
    held = frozenset(capabilities)
    architectures = [native]
    for family in profile.get("archMap", []):
        if family["architecture"] == native:
            architectures += family["subArchitectures"]
    architectures += profile.get("architectures", [])
    rules: list[SeccompRule] = []
    for rule in profile["syscalls"]:
        if _all_hold(rule.get("includes", {}), held, goarch, kernel) and not _one_holds(
            rule.get("excludes", {}), held, goarch, kernel
        ):
            rules.append(_plain(rule))
    resolved: Seccomp = {
        "defaultAction": profile["defaultAction"],
        "architectures": list(dict.fromkeys(architectures)),
        "syscalls": rules,
    }
    if "defaultErrnoRet" in profile:
        resolved["defaultErrnoRet"] = profile["defaultErrnoRet"]
    return resolved


def _plain(rule: Rule) -> SeccompRule:
    plain: SeccompRule = {"names": rule["names"], "action": rule["action"]}
    if "errnoRet" in rule:
        plain["errnoRet"] = rule["errnoRet"]
    if "args" in rule:
        plain["args"] = rule["args"]
    return plain


def _all_hold(
    conditions: Conditions, capabilities: frozenset[str], goarch: str, kernel: tuple[int, int]
) -> bool:
    arches = conditions.get("arches")
    return (
        capabilities.issuperset(conditions.get("caps", ()))
        and (not arches or goarch in arches)
        and ("minKernel" not in conditions or kernel >= _release(conditions["minKernel"]))
    )


def _one_holds(
    conditions: Conditions, capabilities: frozenset[str], goarch: str, kernel: tuple[int, int]
) -> bool:
    return (
        not capabilities.isdisjoint(conditions.get("caps", ()))
        or goarch in conditions.get("arches", ())
        or ("minKernel" in conditions and kernel >= _release(conditions["minKernel"]))
    )


def _rule(value: object, where: str) -> Rule:
    source = _object(value, where)
    name, names = source.get("name"), _strings(source, "names", where + ".")
    if name and names:
        raise InvalidArgument(
            "'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'"
        )
    if name is not None and not isinstance(name, str):
        raise _bad(f"{where}.name: must be a string")
    rule: Rule = {
        "names": [name] if name else names,
        "action": _word(source.get("action"), ACTIONS, where + ".action"),
    }
    if source.get("errnoRet") is not None:
        rule["errnoRet"] = _number(source["errnoRet"], where + ".errnoRet", _MAXIMUM_ERRNO)
    arguments = _list(source, "args", where + ".")
    if arguments:
        rule["args"] = [_argument(item, f"{where}.args[{i}]") for i, item in enumerate(arguments)]
    for key in ("includes", "excludes"):
        if source.get(key):
            rule[key] = _conditions(source[key], f"{where}.{key}")
    return rule


def _argument(value: object, where: str) -> SeccompArgument:
    source = _object(value, where)
    return {
        "index": _number(source.get("index", 0), where + ".index", 5),
        "value": _number(source.get("value", 0), where + ".value", (1 << 64) - 1),
        "valueTwo": _number(source.get("valueTwo", 0), where + ".valueTwo", (1 << 64) - 1),
        "op": _word(source.get("op"), OPERATORS, where + ".op"),
    }


def _conditions(value: object, where: str) -> Conditions:
    source = _object(value, where)
    conditions: Conditions = {}
    if source.get("caps"):
        conditions["caps"] = _strings(source, "caps", where + ".")
    if source.get("arches"):
        conditions["arches"] = _strings(source, "arches", where + ".")
    release = source.get("minKernel")
    if release:
        try:
            _release(release)
        except (ValueError, AttributeError) as error:
            raise _bad(f"{where}.minKernel: must be a kernel version such as 4.8") from error
        conditions["minKernel"] = release
    return conditions


def _release(text: str) -> tuple[int, int]:
    """(major, minor) of a kernel version written as ``4.8``. Raises ``ValueError``."""
    major, minor = text.split(".")
    return int(major), int(minor)


def _family(value: object, where: str) -> ArchitectureFamily:
    source = _object(value, where)
    native = source.get("architecture")
    if not isinstance(native, str):
        raise _bad(f"{where}.architecture: must be a string")
    return {
        "architecture": native,
        "subArchitectures": _strings(source, "subArchitectures", where + "."),
    }


def _bad(message: str) -> InvalidArgument:
    return InvalidArgument("Decoding seccomp profile failed: " + message)


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(f"{where}: must be an object")
    return value


def _list(source: dict[str, Any], key: str, where: str) -> list[Any]:
    value = source.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _bad(f"{where}{key}: must be an array")
    return value


def _strings(source: dict[str, Any], key: str, where: str) -> list[str]:
    values = _list(source, key, where)
    if not all(isinstance(item, str) for item in values):
        raise _bad(f"{where}{key}: must be an array of strings")
    return values


def _word(value: object, words: tuple[str, ...], where: str) -> str:
    if not isinstance(value, str) or value not in words:
        raise _bad(f"{where}: {json.dumps(value)} is none of {', '.join(words)}")
    return value


def _number(value: object, where: str, maximum: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
        raise _bad(f"{where}: must be a number from 0 to {maximum}")
    return value
