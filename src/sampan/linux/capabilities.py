"""Capability sets and secure bits of the calling thread (capabilities(7))."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable

from sampan.linux import libc
from sampan.linux.libc import check

_VERSION_3 = 0x20080522
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_GET_SECUREBITS, _PR_SET_SECUREBITS = 23, 24, 27, 28
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4
SECBIT_NO_SETUID_FIXUP = 1 << 2


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _mask(numbers: Iterable[int]) -> int:
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask


def capset(*, effective: Iterable[int], permitted: Iterable[int], inheritable: Iterable[int]) -> None:
    capset_ready(effective=effective, permitted=permitted, inheritable=inheritable)()


def capset_ready(
    *, effective: Iterable[int], permitted: Iterable[int], inheritable: Iterable[int]
) -> libc.Call:
    header = _Header(_VERSION_3, 0)
    sets = [_mask(effective), _mask(permitted), _mask(inheritable)]
    data = (_Data * 2)(_Data(*(s & 0xFFFFFFFF for s in sets)), _Data(*(s >> 32 for s in sets)))
    return libc.ready("capset", libc.libc.capset, ctypes.byref(header), ctypes.byref(data))


def capget() -> tuple[int, int, int]:
    """(effective, permitted, inheritable) as bit masks."""
    header = _Header(_VERSION_3, 0)
    data = (_Data * 2)()
    check(libc.libc.capget(ctypes.byref(header), ctypes.byref(data)), "capget")
    low, high = data
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def _prctl(what: str, *arguments: int) -> int:
    words = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:5]]
    words[0] = ctypes.c_int(arguments[0])  # type: ignore[call-overload]
    return check(libc.libc.prctl(*words), what)


def limit_bounding_set(keep: Iterable[int]) -> None:
    """Drop every capability that is not in ``keep`` from the bounding set."""
    for call in limit_bounding_set_ready(keep):
        call()


def limit_bounding_set_ready(keep: Iterable[int]) -> list[libc.Call]:
    wanted = _mask(keep)
    calls: list[libc.Call] = []
    for number in range(64):
        if wanted >> number & 1:
            continue
        if libc.libc.prctl(_PR_CAPBSET_READ, ctypes.c_ulong(number), 0, 0, 0) < 0:
            break  # past the kernel's last capability
        calls.append(functools.partial(libc.libc.prctl, _PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0))
    return calls


def set_ambient(numbers: Iterable[int]) -> None:
    _prctl("PR_CAP_AMBIENT_CLEAR_ALL", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for number in numbers:
        _prctl("PR_CAP_AMBIENT_RAISE", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


def get_securebits() -> int:
    return _prctl("PR_GET_SECUREBITS", _PR_GET_SECUREBITS)


def set_securebits(bits: int) -> None:
    _prctl("PR_SET_SECUREBITS", _PR_SET_SECUREBITS, bits)
