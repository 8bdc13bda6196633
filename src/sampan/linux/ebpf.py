"""Device access programs for cgroups version 2, by bpf(2).

Version 2 has no device controller; a program attached to the group is asked about every access instead. The
program here is a list of tests, one block for each rule, written out in eBPF.

Sources: bpf(2), include/uapi/linux/bpf.h, bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from sampan.linux.libc import syscall

_SYS_BPF = 321 if os.uname().machine == "x86_64" else 280
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_QUERY, _PROG_GET_FD_BY_ID = 5, 8, 9, 16, 13
_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2

MKNOD, READ, WRITE = 1, 2, 4  # BPF_DEVCG_ACC_*
BLOCK, CHARACTER = 1, 2  # BPF_DEVCG_DEV_*

_INSTRUCTION = struct.Struct("<BBhi")
_LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_MOVE, _MOVE_REGISTER, _AND, _SHIFT_RIGHT = 0xB4, 0xBC, 0x54, 0x74  # 32-bit arithmetic
_JUMP_NOT_EQUAL, _JUMP_EQUAL, _JUMP_NOT_EQUAL_REGISTER = 0x56, 0x16, 0x5E  # 32-bit compares
_EXIT = 0x95
_RESULT, _CONTEXT, _TYPE, _ACCESS, _MAJOR, _MINOR, _SCRATCH = 0, 1, 2, 3, 4, 5, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTest:
    """One rule. ``device`` is BLOCK, CHARACTER or None for both; a number of None stands for all."""

    allow: bool
    device: int | None
    access: int
    major: int | None
    minor: int | None


def _instruction(
    code: int, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0
) -> bytes:
    immediate &= 0xFFFFFFFF
    return _INSTRUCTION.pack(code, destination | source << 4, offset, immediate - (immediate >> 31 << 32))


def _answer(allow: bool) -> bytes:
    return _instruction(_MOVE, _RESULT, immediate=int(allow)) + _instruction(_EXIT)


def device_program(tests: Iterable[DeviceTest], *, otherwise: bool) -> bytes:
    """The program that answers with the last test that fits, and ``otherwise`` where none does.

    An allowing test fits if it covers all of the access asked for, a denying one if it covers some of it.
    """
    program = b"".join(
        (
            _instruction(_LOAD_WORD, _TYPE, _CONTEXT, 0),
            _instruction(_MOVE_REGISTER, _ACCESS, _TYPE),
            _instruction(_SHIFT_RIGHT, _ACCESS, immediate=16),
            _instruction(_AND, _TYPE, immediate=0xFFFF),
            _instruction(_LOAD_WORD, _MAJOR, _CONTEXT, 4),
            _instruction(_LOAD_WORD, _MINOR, _CONTEXT, 8),
        )
    )
    for test in reversed(list(tests)):
        program += _block(test)
    return program + _answer(otherwise)


def _block(test: DeviceTest) -> bytes:
    """Instructions that answer if the test fits and else fall out at their end."""
    conditions: list[tuple[bytes, int, int, int, int]] = []  # (before, jump, register, source, immediate)
    if test.device is not None:
        conditions.append((b"", _JUMP_NOT_EQUAL, _TYPE, 0, test.device))
    if test.access != MKNOD | READ | WRITE:
        before = _instruction(_MOVE_REGISTER, _SCRATCH, _ACCESS)
        before += _instruction(_AND, _SCRATCH, immediate=test.access)
        if test.allow:
            conditions.append((before, _JUMP_NOT_EQUAL_REGISTER, _SCRATCH, _ACCESS, 0))
        else:
            conditions.append((before, _JUMP_EQUAL, _SCRATCH, 0, 0))
    for register, number in ((_MAJOR, test.major), (_MINOR, test.minor)):
        if number is not None:
            conditions.append((b"", _JUMP_NOT_EQUAL, register, 0, number))
    block = _answer(test.allow)
    for before, jump, register, source, immediate in reversed(conditions):
        distance = len(block) // _INSTRUCTION.size
        block = before + _instruction(jump, register, source, distance, immediate) + block
    return block


def load_device_program(program: bytes) -> int:
    """A descriptor of the program in the kernel. Raises ``OSError``: EACCES, EINVAL if it is refused."""
    instructions = ctypes.create_string_buffer(program, len(program))
    license_text = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "IIQQIIQII16sI",
        _TYPE_CGROUP_DEVICE,
        len(program) // _INSTRUCTION.size,
        ctypes.addressof(instructions),
        ctypes.addressof(license_text),
        0,  # log level
        0,  # log size
        0,  # log buffer
        0,  # kernel version
        0,  # flags
        b"sampan_device",
        0,  # interface index
    )
    return _bpf("load the device program", _PROG_LOAD, attributes)


def attach_device_program(group_fd: int, program_fd: int) -> None:
    """Ask the program about every device access in the group; it stays until the group is removed."""
    attributes = struct.pack("IIII", group_fd, program_fd, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI)
    _bpf("attach the device program", _PROG_ATTACH, attributes)


def attached_device_programs(group_fd: int) -> list[int]:
    """Identifiers of the programs attached to the group itself."""
    identifiers = (ctypes.c_uint32 * 64)()
    layout = struct.Struct("IIIIQI4x")
    attributes = ctypes.create_string_buffer(
        layout.pack(group_fd, _ATTACH_CGROUP_DEVICE, 0, 0, ctypes.addressof(identifiers), len(identifiers)),
        64,
    )
    syscall("find the device programs", _SYS_BPF, _PROG_QUERY, attributes, len(attributes))
    count: int = layout.unpack(attributes.raw[: layout.size])[5]
    return list(identifiers[:count])


def detach_device_program(group_fd: int, identifier: int) -> None:
    """Take a program off the group."""
    program_fd = _bpf("find the device program", _PROG_GET_FD_BY_ID, struct.pack("III", identifier, 0, 0))
    try:
        attributes = struct.pack("IIII", group_fd, program_fd, _ATTACH_CGROUP_DEVICE, 0)
        _bpf("detach the device program", _PROG_DETACH, attributes)
    finally:
        os.close(program_fd)


def _bpf(what: str, command: int, attributes: bytes) -> int:
    return syscall(what, _SYS_BPF, command, ctypes.c_char_p(attributes), len(attributes))
