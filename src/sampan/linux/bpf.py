"""Classic BPF programs over ``struct seccomp_data``, assembled from their end.

Classic BPF jumps only forward, so a program is written backwards: what comes last is emitted first, every
emission returns a place, and a jump names places that exist already. A place is the index of an instruction
counted from the end of the program, which does not change as more is put in front.

A conditional jump reaches 255 instructions. A farther target is brought nearer without the caller noticing: a
return is emitted again, anything else is reached by an unconditional jump. Both cost one instruction.

Sources: include/uapi/linux/bpf_common.h, filter.h, seccomp.h; networking/filter.rst.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Verdict = TypeVar("Verdict")

LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS: A = 32-bit word of seccomp_data at offset k
AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
JUMP = 0x05  # BPF_JMP | BPF_JA
JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_GREATER = 0x25  # BPF_JMP | BPF_JGT | BPF_K
JUMP_GREATER_EQUAL = 0x35  # BPF_JMP | BPF_JGE | BPF_K
RETURN = 0x06  # BPF_RET | BPF_K

NUMBER_OFFSET = 0
ARCHITECTURE_OFFSET = 4
ARGUMENTS_OFFSET = 16

MAXIMUM_LENGTH = 4096  # BPF_MAXINSNS
REACH = 255

_INSTRUCTION = struct.Struct("HBBI")


class ProgramTooLong(Exception):
    """The program has more instructions than the kernel takes."""


class Assembler:
    """A program under construction; every method puts one step in front and returns its place."""

    def __init__(self) -> None:
        self._reversed: list[tuple[int, int, int, int]] = []
        self._returns: dict[int, int] = {}

    def give(self, value: int) -> int:
        """Return ``value`` (a SECCOMP_RET_… action with its data) to the kernel."""
        place = self._returns.get(value)
        if place is None or len(self._reversed) - place > REACH // 2:
            place = self._returns[value] = self._emit(RETURN, 0, 0, value)
        return place

    def load(self, offset: int, then: int) -> int:
        """Load the word at ``offset``, then go on at ``then``."""
        self._fall_through(then)
        return self._emit(LOAD, 0, 0, offset)

    def search(self, ranges: Sequence[tuple[int, Verdict]], leaf: Callable[[Verdict], int]) -> int:
        """Go on at the ``leaf`` of the range that has the loaded word; each begins with its number."""
        if len(ranges) == 1:
            return leaf(ranges[0][1])
        middle = len(ranges) // 2
        upper = self.search(ranges[middle:], leaf)
        lower = self.search(ranges[:middle], leaf)
        return self.branch(JUMP_GREATER_EQUAL, ranges[middle][0], upper, lower)

    def mask(self, bits: int, then: int) -> int:
        """Keep only ``bits`` of the loaded word, then go on at ``then``."""
        self._fall_through(then)
        return self._emit(AND, 0, 0, bits)

    def branch(self, operation: int, value: int, then: int, otherwise: int) -> int:
        """Compare the loaded word with ``value`` and go on at one of two places."""
        # Bringing one target nearer puts an instruction between: leave room for both.
        if self._distance(then) > REACH - 1:
            then = self._bring_near(then)
        if self._distance(otherwise) > REACH:
            otherwise = self._bring_near(otherwise)
        return self._emit(operation, self._distance(then), self._distance(otherwise), value)

    def program(self, start: int) -> bytes:
        """The finished program, entered at ``start``. Raises ``ProgramTooLong``."""
        self._fall_through(start)
        if len(self._reversed) > MAXIMUM_LENGTH:
            raise ProgramTooLong(f"{len(self._reversed)} instructions")
        return b"".join(_INSTRUCTION.pack(*instruction) for instruction in reversed(self._reversed))

    def _distance(self, place: int) -> int:
        """How many instructions lie between the next emission and ``place``."""
        return len(self._reversed) - place - 1

    def _emit(self, code: int, jump_true: int, jump_false: int, value: int) -> int:
        self._reversed.append((code, jump_true, jump_false, value))
        return len(self._reversed) - 1

    def _fall_through(self, place: int) -> None:
        if self._distance(place) > 0:
            self._bring_near(place)

    def _bring_near(self, place: int) -> int:
        code, _, _, value = self._reversed[place]
        if code == RETURN:
            place = self._returns[value] = self._emit(RETURN, 0, 0, value)
            return place
        return self._emit(JUMP, 0, 0, self._distance(place))
