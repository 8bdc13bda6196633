"""Compiled filters, run by an interpreter of classic BPF, against the rules that they were compiled from."""

from __future__ import annotations

import concurrent.futures
import ctypes
import json
import pathlib
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.seccomp_reference import (
    ALLOW,
    ENOSYS,
    EPERM,
    ERRNO,
    HOSTS,
    OPERATORS,
    REFERENCE,
    X32_BIT,
    expected,
)

from sampan.errors import InvalidArgument
from sampan.linux import bpf
from sampan.sandbox import seccomp
from sampan.spec import syscalls
from sampan.spec.runtime import ALL_CAPABILITIES, DEFAULT_CAPABILITIES
from sampan.spec.seccomp import default_profile, parse

if TYPE_CHECKING:
    from sampan.spec.seccomp import Profile

KILL_THREAD = 0


def run(program: bytes, number: int, audit: int, arguments: tuple[int, ...] = ()) -> int:
    """What the program returns for a call; fails on a jump or load that the kernel would refuse."""
    data = struct.pack("<iIQ6Q", number - (number >> 31 << 32), audit, 0, *(arguments + (0,) * 6)[:6])
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator = position = 0
    while True:
        operation, jump_true, jump_false, value = code[position]
        position += 1
        if operation == bpf.LOAD:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif operation == bpf.AND:
            accumulator &= value
        elif operation == bpf.JUMP:
            position += value
        elif operation == bpf.RETURN:
            assert isinstance(value, int)
            return value
        else:
            taken = {
                bpf.JUMP_EQUAL: accumulator == value,
                bpf.JUMP_GREATER: accumulator > value,
                bpf.JUMP_GREATER_EQUAL: accumulator >= value,
            }[operation]
            position += jump_true if taken else jump_false


# -- the assembler ------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=700, unique=True), st.integers(0, 5001))
def test_chains_longer_than_a_jump_reaches(values: list[int], number: int) -> None:
    assembler = bpf.Assembler()
    start = assembler.give(1)
    far = assembler.load(bpf.NUMBER_OFFSET, assembler.give(3))
    for value in values:
        start = assembler.branch(bpf.JUMP_EQUAL, value, far if value % 2 else assembler.give(2), start)
    program = assembler.program(assembler.load(bpf.NUMBER_OFFSET, start))
    expected = 1 if number not in values else 3 if number % 2 else 2
    assert run(program, number, 0) == expected


def test_a_program_longer_than_the_kernel_takes_is_refused() -> None:
    assembler = bpf.Assembler()
    start = assembler.give(0)
    for value in range(bpf.MAXIMUM_LENGTH):
        start = assembler.branch(bpf.JUMP_EQUAL, value, assembler.give(1), start)
    with pytest.raises(bpf.ProgramTooLong):
        assembler.program(start)


# -- the default profile ------------------------------------------------------------------------------------


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the reference profile is not on this machine")
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    "capabilities",
    [
        DEFAULT_CAPABILITIES,
        (),
        ALL_CAPABILITIES,
        ("CAP_SYS_ADMIN",),
        *((name,) for name in ALL_CAPABILITIES if name not in DEFAULT_CAPABILITIES),
    ],
    ids=lambda names: f"{len(names)}-{names[0] if names else 'none'}",
)
def test_every_call_gets_the_verdict_of_the_reference(host: str, capabilities: tuple[str, ...]) -> None:
    program = seccomp.compile_filter(
        default_profile(), capabilities=capabilities, architecture=host, kernel=(6, 1)
    )
    verdicts = expected(json.loads(REFERENCE.read_text()), capabilities, host)
    wrong = [
        (name, number, hex(audit), arguments, hex(actual), hex(verdict))
        for (name, number, audit, arguments), verdict in verdicts.items()
        if (actual := run(program, number, audit, arguments)) != verdict
    ]
    assert wrong == []


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the reference profile is not on this machine")
def test_the_default_profile_lists_the_reference_architectures() -> None:
    document = json.loads(REFERENCE.read_text())
    families = [
        {"architecture": family["architecture"], "subArchitectures": family["subArchitectures"] or []}
        for family in document["archMap"]
    ]
    assert default_profile()["archMap"] == families
    assert parse(REFERENCE.read_bytes())["archMap"] == families


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the reference profile is not on this machine")
def test_the_reference_document_compiles_to_the_same_verdicts() -> None:
    user = seccomp.compile_filter(parse(REFERENCE.read_bytes()), capabilities=DEFAULT_CAPABILITIES)
    ours = seccomp.compile_filter(default_profile(), capabilities=DEFAULT_CAPABILITIES)
    assert user == ours


DEFAULT = seccomp.compile_filter(
    default_profile(), capabilities=DEFAULT_CAPABILITIES, architecture="x86_64", kernel=(6, 1)
)
AMD64, I386 = 0xC000003E, 0x40000003


def test_a_foreign_architecture_kills() -> None:
    assert run(DEFAULT, 0, 0xC00000B7) == KILL_THREAD


def test_an_int_is_compared_as_an_int() -> None:
    assert run(DEFAULT, 41, AMD64, (1 << 32 | 38,)) == EPERM  # the kernel sees AF_ALG
    assert run(DEFAULT, 41, AMD64, (1 << 32 | 2,)) == ALLOW
    assert run(DEFAULT, 135, AMD64, (1 << 32 | 4,)) == EPERM


def test_calls_younger_than_the_profile_do_not_exist() -> None:
    assert run(DEFAULT, 5000, AMD64) == ENOSYS
    assert run(DEFAULT, 5000, I386) == ENOSYS
    assert run(DEFAULT, X32_BIT | 5000, AMD64) == ENOSYS
    assert run(DEFAULT, 0xFFFFFFFF, AMD64) == ENOSYS
    assert run(DEFAULT, 500, I386) == ENOSYS


def test_processes_may_be_read_since_linux_4_8() -> None:
    old = seccomp.compile_filter(default_profile(), capabilities=(), architecture="x86_64", kernel=(4, 7))
    assert run(old, syscalls.numbers("x86_64")["ptrace"], AMD64) == EPERM
    assert run(DEFAULT, syscalls.numbers("x86_64")["ptrace"], AMD64) == ALLOW


# -- profiles of users --------------------------------------------------------------------------------------


def compile_rules(*rules: dict[str, Any], **top: Any) -> bytes:
    profile = parse(json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(rules), **top}))
    return seccomp.compile_filter(profile, capabilities=(), architecture="x86_64")


WORDS = st.sampled_from([0, 1, 2, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, 5 << 32, (1 << 64) - 1]) | st.integers(
    0, (1 << 64) - 1
)


@given(st.sampled_from(sorted(OPERATORS)), WORDS, WORDS, st.integers(0, 5))
def test_comparisons_of_64_bits(name: str, value: int, actual: int, index: int) -> None:
    program = compile_rules(
        {
            "name": "read",
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": index, "value": value, "op": name}],
        }
    )
    arguments = tuple(actual if place == index else 7 for place in range(6))
    expected = ALLOW if OPERATORS[name](actual, value) else EPERM
    assert run(program, 0, AMD64, arguments) == expected


@given(WORDS, WORDS, WORDS)
def test_masked_comparisons_of_64_bits(mask: int, value: int, actual: int) -> None:
    program = compile_rules(
        {
            "names": ["read"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}],
        }
    )
    assert run(program, 0, AMD64, (actual,)) == (ALLOW if actual & mask == value else EPERM)


def test_all_arguments_must_match_but_several_tests_of_one_are_alternatives() -> None:
    def argument(index: int, value: int) -> dict[str, Any]:
        return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}

    both = compile_rules(
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [argument(0, 1), argument(1, 2)]}
    )
    assert [run(both, 0, AMD64, pair) for pair in ((1, 2), (1, 3), (0, 2))] == [ALLOW, EPERM, EPERM]
    either = compile_rules(
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [argument(0, 1), argument(0, 2)]}
    )
    assert [run(either, 0, AMD64, (value,)) for value in (1, 2, 3)] == [ALLOW, ALLOW, EPERM]


def test_a_rule_without_arguments_counts_more_than_one_with() -> None:
    program = compile_rules(
        {
            "names": ["read"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 5,
            "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
        },
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["read"], "action": "SCMP_ACT_TRAP"},
    )
    assert run(program, 0, AMD64, (1,)) == ALLOW


@pytest.mark.parametrize(
    ("action", "value"),
    [
        ("SCMP_ACT_KILL", 0),
        ("SCMP_ACT_KILL_THREAD", 0),
        ("SCMP_ACT_KILL_PROCESS", 0x80000000),
        ("SCMP_ACT_TRAP", 0x30000),
        ("SCMP_ACT_ERRNO", 0x50001),
        ("SCMP_ACT_TRACE", 0x7FF00001),
        ("SCMP_ACT_LOG", 0x7FFC0000),
        ("SCMP_ACT_ALLOW", ALLOW),
    ],
)
def test_actions(action: str, value: int) -> None:
    program = compile_rules(
        {"names": ["read"], "action": action}, defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=9
    )
    assert run(program, 0, AMD64) == value
    default = compile_rules(
        {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9}, defaultAction=action
    )
    assert run(default, 0, AMD64) == ERRNO | 9


def test_only_the_named_architectures_may_call() -> None:
    program = compile_rules({"names": ["read"], "action": "SCMP_ACT_ALLOW"})
    assert run(program, 0, AMD64) == ALLOW
    assert run(program, 3, I386) == KILL_THREAD
    assert run(program, X32_BIT, AMD64) == KILL_THREAD
    both = compile_rules(
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"}, architectures=["SCMP_ARCH_X86", "SCMP_ARCH_PPC"]
    )
    assert run(both, 3, I386) == ALLOW


def test_socket_calls_of_32_bit_x86_are_let_through_their_multiplexer_alone() -> None:
    program = compile_rules(
        {"names": ["socket", "bind"], "action": "SCMP_ACT_ALLOW"}, architectures=["SCMP_ARCH_X86"]
    )
    socketcall = syscalls.numbers("x86")["socketcall"]
    assert [run(program, socketcall, I386, (selector,)) for selector in (1, 2, 3)] == [ALLOW, ALLOW, EPERM]
    assert run(program, syscalls.numbers("x86")["socket"], I386) == ALLOW


def test_a_profile_without_calls_gives_its_default() -> None:
    empty = compile_rules()
    assert run(empty, 0, AMD64) == run(empty, 9999, AMD64) == EPERM
    permissive = compile_rules(
        {"names": ["mount"], "action": "SCMP_ACT_ERRNO"}, defaultAction="SCMP_ACT_ALLOW"
    )
    assert run(permissive, 9999, AMD64) == ALLOW
    assert run(permissive, syscalls.numbers("x86_64")["mount"], AMD64) == EPERM


def test_a_profile_too_large_for_the_kernel_is_refused() -> None:
    rules = [
        {
            "names": ["read"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}],
        }
        for value in range(3000)
    ]
    with pytest.raises(InvalidArgument, match="too large"):
        compile_rules(*rules)


def test_hosts_without_a_table_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="s390x is not supported"):
        seccomp.compile_filter(default_profile(), capabilities=(), architecture="s390x")


# -- the cache ----------------------------------------------------------------------------------------------


def test_a_filter_is_compiled_once_for_each_profile_and_bounding_set(tmp_path: pathlib.Path) -> None:
    directory = str(tmp_path)
    first = seccomp.cached_filter(directory, default_profile(), DEFAULT_CAPABILITIES)
    stamp = pathlib.Path(first).stat().st_mtime_ns
    assert seccomp.cached_filter(directory, default_profile(), reversed(DEFAULT_CAPABILITIES)) == first
    assert pathlib.Path(first).stat().st_mtime_ns == stamp
    assert pathlib.Path(first).read_bytes() == seccomp.compile_filter(
        default_profile(), capabilities=DEFAULT_CAPABILITIES
    )
    other: Profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    assert seccomp.cached_filter(directory, default_profile(), ALL_CAPABILITIES) != first
    assert seccomp.cached_filter(directory, other, DEFAULT_CAPABILITIES) != first
    assert len(list(tmp_path.iterdir())) == 3


# -- the table of numbers -----------------------------------------------------------------------------------


def test_the_table_agrees_with_libseccomp() -> None:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp is not installed")
    resolve = library.seccomp_syscall_resolve_name_arch
    resolve.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    tokens = {
        "x86_64": 0xC000003E,
        "x86": 0x40000003,
        "x32": 0x4000003E,
        "aarch64": 0xC00000B7,
        "arm": 0x40000028,
    }
    for abi, token in tokens.items():
        base = X32_BIT if abi == "x32" else 0
        for name, number in syscalls.numbers(abi).items():
            known = resolve(token, name.encode())
            assert known < 0 or known == number + base, (abi, name)


def test_many_may_write_the_same_filter_at_once(tmp_path: pathlib.Path) -> None:
    together = threading.Barrier(8)

    def write() -> str:
        together.wait(10)
        return seccomp.cached_filter(str(tmp_path), default_profile(), DEFAULT_CAPABILITIES)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        paths = {future.result() for future in [pool.submit(write) for _ in range(8)]}
    assert [str(path) for path in tmp_path.iterdir()] == list(paths)
