"""Seccomp profiles compiled to classic BPF, as a tree of number ranges for each ABI.

The kernel calls a filter for every system call that it has not learnt to be always allowed, so a filter is a
search tree: neighbouring numbers with the same verdict are one range, and about seven comparisons find it.

Laws of a verdict, which are libseccomp's and runc's:
- An ABI that the profile does not name kills the thread.
- Of several rules for a call without arguments, the first counts, and it counts more than any rule with
  arguments; otherwise the first rule whose arguments all match; otherwise the default.
- A rule with several comparisons of one argument matches if any of its comparisons does.
- A rule that says what the default says anyway is none.
- Where the default refuses, a call younger than all that the profile names gets ENOSYS: programs fall back
  then, and would give up after EPERM.
- Arguments are compared as 64 bits, and as 32 bits for an ABI of 32 bits. An argument that the kernel takes
  as an int is compared as 32 bits too: what stands in the upper half must not make another number of it.

Sources: seccomp(2), seccomp_rule_add(3), Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument
from sampan.linux import bpf
from sampan.linux.kernel import version
from sampan.spec.seccomp import resolve
from sampan.spec.syscalls import MULTIPLEXED_X86, numbers

if TYPE_CHECKING:
    from sampan.spec.runtime import Seccomp, SeccompArgument, SeccompRule
    from sampan.spec.seccomp import Profile

# Part of the name of a cached filter: to be raised with every change of what is compiled.
FORMAT = 1

_ALLOW, _LOG, _TRACE, _ERRNO = 0x7FFF0000, 0x7FFC0000, 0x7FF00000, 0x00050000
_TRAP, _KILL_THREAD, _KILL_PROCESS = 0x00030000, 0x00000000, 0x80000000
_ACTIONS = {
    "SCMP_ACT_ALLOW": _ALLOW,
    "SCMP_ACT_LOG": _LOG,
    "SCMP_ACT_TRACE": _TRACE,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_TRAP": _TRAP,
    "SCMP_ACT_KILL": _KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": _KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": _KILL_PROCESS,
}
_PERMISSIVE = (_ALLOW, _LOG, _TRACE)
_X32_BIT = 0x40000000
_ARM_PRIVATE = 0xF0000  # set_tls and its like: numbers far above all others
_WORD = 0xFFFFFFFF

# (call, index) of arguments that are an int in the kernel and that profiles compare.
_INTS = frozenset({("socket", 0), ("socket", 1), ("socket", 2), ("personality", 0)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Abi:
    """``audit`` is the kernel's AUDIT_ARCH_… value, ``bits`` the size of an argument."""

    name: str
    audit: int
    bits: int


ABIS = {
    "SCMP_ARCH_X86_64": Abi(name="x86_64", audit=0xC000003E, bits=64),
    "SCMP_ARCH_X86": Abi(name="x86", audit=0x40000003, bits=32),
    "SCMP_ARCH_X32": Abi(name="x32", audit=0xC000003E, bits=64),
    "SCMP_ARCH_AARCH64": Abi(name="aarch64", audit=0xC00000B7, bits=64),
    "SCMP_ARCH_ARM": Abi(name="arm", audit=0x40000028, bits=32),
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One test of an argument; ``narrow`` compares its lower 32 bits alone."""

    index: int
    operator: str
    value: int
    value_two: int
    narrow: bool


# What a call gets: a list of (comparisons that must all hold, return value) and the value otherwise.
Branches = tuple[tuple[tuple[Comparison, ...], int], ...]
Verdict = tuple[Branches, int]


def compile_filter(
    profile: Profile,
    *,
    capabilities: Iterable[str],
    architecture: str = os.uname().machine,
    kernel: tuple[int, int] | None = None,
) -> bytes:
    """The program for a container whose bounding set is ``capabilities``.

    ``architecture`` and ``kernel`` are the host's. Raises ``InvalidArgument`` for a profile that is too large
    or for an architecture that is not supported.
    """
    resolved = resolve(
        profile, capabilities=capabilities, architecture=architecture, kernel=kernel or version()
    )
    return _compile(resolved)


def cached_filter(
    directory: str,
    profile: Profile,
    capabilities: Iterable[str],
    *,
    architecture: str = os.uname().machine,
) -> str:
    """The path of the compiled program in ``directory``, compiled now if it is not there yet.

    Its name tells all that it was made of. It appears whole or not at all, also after a power loss.
    """
    resolved = resolve(profile, capabilities=capabilities, architecture=architecture, kernel=version())
    source = json.dumps([FORMAT, architecture, resolved], sort_keys=True, separators=(",", ":"))
    path = f"{directory}/{hashlib.sha256(source.encode()).hexdigest()}.bpf"
    if not os.path.exists(path):
        _write_whole(path, _compile(resolved))
    return path


def _write_whole(path: str, data: bytes) -> None:
    # A name of its own: others, in this process too, may be writing the same filter.
    temporary = f"{path}.{os.urandom(8).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def _compile(seccomp: Seccomp) -> bytes:
    default = _value(seccomp["defaultAction"], seccomp.get("defaultErrnoRet"))
    rules = seccomp.get("syscalls", [])
    by_audit: dict[int, dict[str, Abi]] = {}
    for word in seccomp["architectures"]:
        abi = ABIS.get(word)
        if abi is not None:  # others never occur on this host
            by_audit.setdefault(abi.audit, {})[abi.name] = abi
    assembler = bpf.Assembler()
    try:
        start = assembler.give(_KILL_THREAD)
        for audit, abis in reversed(by_audit.items()):
            tree = _numbers(assembler, rules, abis, default)
            start = assembler.branch(bpf.JUMP_EQUAL, audit, tree, start)
        return assembler.program(assembler.load(bpf.ARCHITECTURE_OFFSET, start))
    except bpf.ProgramTooLong as error:
        raise InvalidArgument(f"seccomp profile is too large: it compiles to {error}") from error


def _numbers(assembler: bpf.Assembler, rules: list[SeccompRule], abis: dict[str, Abi], default: int) -> int:
    """The trees of the ABIs that share an architecture: x32 has its numbers above those of x86-64."""
    ranges: list[tuple[int, Verdict]] = []
    for abi in abis.values():
        base = _X32_BIT if abi.name == "x32" else 0
        ranges += [(base + first, verdict) for first, verdict in _ranges(rules, abi, default)]
    if "x86_64" in abis and "x32" not in abis:
        ranges.append((_X32_BIT, ((), _KILL_THREAD)))
    ranges.sort(key=lambda item: item[0])
    return assembler.load(
        bpf.NUMBER_OFFSET, assembler.search(ranges, lambda verdict: _leaf(assembler, verdict))
    )


def _ranges(rules: list[SeccompRule], abi: Abi, default: int) -> list[tuple[int, Verdict]]:
    """(first number, verdict) of every range of an ABI, ascending from 0; each ends where the next begins."""
    verdicts = _verdicts(rules, abi, default)
    unlisted: Verdict = ((), default)
    unknown: Verdict = ((), default if default in _PERMISSIVE else _ERRNO | errno.ENOSYS)
    ranges: list[tuple[int, Verdict]] = [(0, unlisted)]
    expected = 0
    for number in sorted(verdicts):
        if number > expected:
            # The private calls of arm stand far above the youngest of the ordinary ones.
            above_ordinary = expected < _ARM_PRIVATE <= number
            _append(ranges, expected, unknown if above_ordinary else unlisted)
        _append(ranges, number, verdicts[number])
        expected = number + 1
    _append(ranges, expected, unknown if verdicts else unlisted)
    return ranges


def _append(ranges: list[tuple[int, Verdict]], first: int, verdict: Verdict) -> None:
    if ranges[-1][0] == first:
        ranges.pop()
    if not ranges or ranges[-1][1] != verdict:
        ranges.append((first, verdict))


def _verdicts(rules: list[SeccompRule], abi: Abi, default: int) -> dict[int, Verdict]:
    """The verdict on every call that the rules name, also where it is the default's."""
    table = numbers(abi.name)
    branches: dict[int, list[tuple[tuple[Comparison, ...], int]]] = {}
    plain: dict[int, int] = {}
    for rule in rules:
        value = _value(rule["action"], rule.get("errnoRet"))
        for name in rule["names"]:
            for number, alternatives in _places(name, rule, table, abi):
                tests = branches.setdefault(number, [])
                if value == default:
                    continue
                if alternatives:
                    tests.extend((all_of, value) for all_of in alternatives)
                else:
                    plain.setdefault(number, value)
    return {
        number: ((), plain[number]) if number in plain else (tuple(tests), default)
        for number, tests in branches.items()
    }


def _places(
    name: str, rule: SeccompRule, table: dict[str, int], abi: Abi
) -> Iterable[tuple[int, list[tuple[Comparison, ...]]]]:
    """The numbers by which a call is reached, each with the alternatives that must match there."""
    if name in table:
        yield table[name], _alternatives(name, rule.get("args", []), abi)
    if abi.name == "x86" and name in MULTIPLEXED_X86:
        # The arguments lie in memory, out of a filter's sight: what selects the call is all there is.
        multiplexer, selector = MULTIPLEXED_X86[name]
        selected = Comparison(0, "SCMP_CMP_EQ", selector, 0, True)
        yield table[multiplexer], [(selected,)]


def _alternatives(name: str, arguments: list[SeccompArgument], abi: Abi) -> list[tuple[Comparison, ...]]:
    comparisons = tuple(
        Comparison(
            argument["index"],
            argument["op"],
            argument["value"],
            argument.get("valueTwo", 0),
            abi.bits == 32 or (name, argument["index"]) in _INTS,
        )
        for argument in arguments
    )
    if not comparisons:
        return []
    if len({comparison.index for comparison in comparisons}) < len(comparisons):
        return [(comparison,) for comparison in comparisons]
    return [comparisons]


def _value(action: str, errno_ret: int | None) -> int:
    """The value that a filter returns for an action; EPERM where an error has no number."""
    value = _ACTIONS.get(action)
    if value is None:
        raise InvalidArgument(f"seccomp: the action {action} is not supported")
    if value in (_ERRNO, _TRACE):
        value |= errno.EPERM if errno_ret is None else errno_ret
    return value


def _leaf(assembler: bpf.Assembler, verdict: Verdict) -> int:
    branches, otherwise = verdict
    place = assembler.give(otherwise)
    for comparisons, value in reversed(branches):
        matched = assembler.give(value)
        for comparison in reversed(comparisons):
            matched = _compare(assembler, comparison, matched, place)
        place = matched
    return place


def _compare(assembler: bpf.Assembler, comparison: Comparison, then: int, otherwise: int) -> int:
    """Test one argument and go on at one of two places."""
    operator = comparison.operator
    if operator in ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE"):
        opposite = {"NE": "EQ", "LT": "GE", "LE": "GT"}[operator[-2:]]
        then, otherwise, operator = otherwise, then, "SCMP_CMP_" + opposite
    low = bpf.ARGUMENTS_OFFSET + 8 * comparison.index  # little-endian
    value, mask = comparison.value, (1 << 64) - 1
    if operator == "SCMP_CMP_MASKED_EQ":
        value, mask = comparison.value_two, comparison.value
    word = value & _WORD
    if operator in ("SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"):
        place = _equal(assembler, low, mask & _WORD, word, then, otherwise)
        if not comparison.narrow and (mask >> 32 or value >> 32):
            place = _equal(assembler, low + 4, mask >> 32, value >> 32, place, otherwise)
        return place
    jump = bpf.JUMP_GREATER if operator == "SCMP_CMP_GT" else bpf.JUMP_GREATER_EQUAL
    place = assembler.load(low, assembler.branch(jump, word, then, otherwise))
    if not comparison.narrow:
        place = assembler.branch(bpf.JUMP_EQUAL, value >> 32, place, otherwise)
        place = assembler.branch(bpf.JUMP_GREATER, value >> 32, then, place)
        place = assembler.load(low + 4, place)
    return place


def _equal(assembler: bpf.Assembler, offset: int, mask: int, value: int, then: int, otherwise: int) -> int:
    place = assembler.branch(bpf.JUMP_EQUAL, value, then, otherwise)
    if mask != _WORD:
        place = assembler.mask(mask, place)
    return assembler.load(offset, place)
