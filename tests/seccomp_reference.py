"""What the reference says about system calls, read from its document: the oracle of what we compile.

A verdict is the value that a filter returns. Conditions on the kernel's version count as met, as they are
since Linux 4.8.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator
from typing import Any

from sampan.sandbox import seccomp
from sampan.spec import syscalls
from tests import reference

REFERENCE = reference.REFERENCE / "seccomp-default.json"
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
EPERM, ENOSYS = ERRNO | 1, ERRNO | 38
X32_BIT, ARM_PRIVATE = 0x40000000, 0xF0000
OPERATORS: dict[str, Callable[[int, int], bool]] = {
    "SCMP_CMP_NE": operator.ne,
    "SCMP_CMP_LT": operator.lt,
    "SCMP_CMP_LE": operator.le,
    "SCMP_CMP_EQ": operator.eq,
    "SCMP_CMP_GE": operator.ge,
    "SCMP_CMP_GT": operator.gt,
}
HOSTS = {
    "x86_64": ("amd64", ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")),
    "aarch64": ("arm64", ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM")),
}


# Values around every value that the profile compares with, and each flag of a new namespace.
VALUES = (
    *(0, 1, 7, 8, 9, 37, 38, 39, 40, 41, 0x11, 0x1200011, 0x7E020011, 0xFFFFFFFF),
    *(0x20000, 0x20008, 0x20009, 0x40000, 0x2000000, 0x4000000, 0x8000000),
    *(0x10000000, 0x20000000, 0x40000000, 0x80000000),
)
ARGUMENTS = [(value, other, 0, 0, 0, 0) for value, other in itertools.product(VALUES, (0, 0x20000))]
ARGUMENT_CALLS = {"socket", "personality", "clone"}
NONE = (0,) * 6


def reference_verdict(
    document: dict[str, Any], name: str, arguments: tuple[int, ...], capabilities: set[str], goarch: str
) -> int:
    """What the reference says about a call."""
    plain: list[int] = []
    matched: list[int] = []
    for rule in document["syscalls"]:
        includes, excludes = rule.get("includes", {}), rule.get("excludes", {})
        if name not in rule["names"]:
            continue
        if not capabilities.issuperset(includes.get("caps", ())) or capabilities & set(
            excludes.get("caps", ())
        ):
            continue
        if goarch not in includes.get("arches", [goarch]) or goarch in excludes.get("arches", ()):
            continue
        value = ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else ERRNO | rule["errnoRet"]
        if not rule.get("args"):
            plain.append(value)
        elif all(compares(test, arguments) for test in rule["args"]):
            matched.append(value)
    default: int = ERRNO | document["defaultErrnoRet"]
    return [*plain, *matched, default][0]


def compares(test: dict[str, Any], arguments: tuple[int, ...]) -> bool:
    actual, value, name = arguments[test["index"]], test["value"], test["op"]
    if name == "SCMP_CMP_MASKED_EQ":
        return bool(actual & value == test.get("valueTwo", 0))
    return OPERATORS[name](actual, value)


def calls(words: tuple[str, ...]) -> Iterator[tuple[str, int, int]]:
    """(name, number, audit architecture) of every call of the ABIs."""
    for word in words:
        abi = seccomp.ABIS[word]
        for name, number in syscalls.numbers(abi.name).items():
            yield name, number + (X32_BIT if abi.name == "x32" else 0), abi.audit


def part(number: int, audit: int) -> tuple[int, int, int]:
    """The numbers that a call is among: x32 and the private calls of arm are parts of their own."""
    return audit, number & X32_BIT, number & ARM_PRIVATE


def youngest_numbers(
    document: dict[str, Any], capabilities: set[str], goarch: str, words: tuple[str, ...]
) -> dict[tuple[int, int, int], int]:
    """The highest number that a rule in force names, in each part."""
    highest: dict[tuple[int, int, int], int] = {}
    for name, number, audit in calls(words):
        if is_named(document, capabilities, goarch, name):
            key = part(number, audit)
            highest[key] = max(number, highest.get(key, 0))
    return highest


def is_named(document: dict[str, Any], capabilities: set[str], goarch: str, name: str) -> bool:
    return any(
        name in rule["names"]
        and capabilities.issuperset(rule.get("includes", {}).get("caps", ()))
        and goarch in rule.get("includes", {}).get("arches", [goarch])
        and not capabilities & set(rule.get("excludes", {}).get("caps", ()))
        for rule in document["syscalls"]
    )


Call = tuple[str, int, int, tuple[int, ...]]
"""(name, number, audit architecture, arguments)"""

BEYOND = (50, 77, 5000, 0xFFFFF)  # the youngest number of an ABI; nearer ones may get a name


def expected(document: dict[str, Any], capabilities: tuple[str, ...], host: str) -> dict[Call, int]:
    """The verdict on every call of a host's ABIs, named or not, and on arguments where they count."""
    goarch, words = HOSTS[host]
    held = set(capabilities)
    youngest = youngest_numbers(document, held, goarch, words)
    verdicts: dict[Call, int] = {}
    taken: set[tuple[int, int]] = set()
    default: int = ERRNO | document["defaultErrnoRet"]
    for name, number, audit in calls(words):
        taken.add((number, audit))
        for arguments in ARGUMENTS if name in ARGUMENT_CALLS else [NONE]:
            verdict = reference_verdict(document, name, arguments, held, goarch)
            if number > youngest[part(number, audit)]:
                verdict = ENOSYS
            verdicts[name, number, audit, arguments] = verdict
    for (audit, x32, private), last in youngest.items():
        if private:
            continue
        for number in (*range(x32, last), *(last + further for further in BEYOND)):
            if (number, audit) not in taken:
                verdicts["", number, audit, NONE] = default if number < last else ENOSYS
    return verdicts
