"""The local driver's mounts: what ``volume create -o type=… -o device=… -o o=…`` says, and doing it.

Theory: a volume with options is mounted on its own directory while somebody uses it, as in Docker, so that it
is seen on the host as well. The words of ``o`` are mount(8)'s: those that the kernel takes as flags, those of
propagation, and the rest, which is the file system's.

Laws: everything is refused in Docker's words; a volume is mounted at most once; what an administrator mounted
in a volume without options is not ours to unmount.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from sampan.errors import Internal, InvalidArgument
from sampan.linux import mount as m

_OPTIONS = ("type", "o", "device", "size")
_REQUIRED = {"device": ("type",), "type": ("device",), "o": ("device", "type")}

# Word of mount(8): (bits to set, bits to clear).
_BITS = {
    "ro": m.MS_RDONLY,
    "nosuid": m.MS_NOSUID,
    "nodev": m.MS_NODEV,
    "noexec": m.MS_NOEXEC,
    "sync": 0x10,
    "mand": 0x40,
    "dirsync": 0x80,
    "noatime": 0x400,
    "nodiratime": 0x800,
    "bind": m.MS_BIND,
    "rbind": m.MS_BIND | m.MS_REC,
    "relatime": 0x200000,
    "strictatime": 0x1000000,
}
_OPPOSITES = {
    "rw": "ro",
    "suid": "nosuid",
    "dev": "nodev",
    "exec": "noexec",
    "async": "sync",
    "nomand": "mand",
    "atime": "noatime",
    "diratime": "nodiratime",
    "norelatime": "relatime",
    "nostrictatime": "strictatime",
}
_KINDS = {
    "private": m.MS_PRIVATE,
    "shared": m.MS_SHARED,
    "slave": m.MS_SLAVE,
    "unbindable": m.MS_UNBINDABLE,
}
_SECRET = re.compile(r"\b(password|passwd|secret)=[^,]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One mount, as mount(2) takes it. ``propagation`` is set afterwards, if any."""

    device: str
    type: str
    flags: int = 0
    propagation: int = 0
    data: str = ""


def check_options(name: str, options: Mapping[str, str]) -> None:
    """Raise InvalidArgument for what the local driver cannot be given."""
    for option in sorted(options):
        if option not in _OPTIONS:
            raise InvalidArgument(f'create {name}: invalid option: "{option}"')
        if "\0" in options[option]:
            raise InvalidArgument(f"create {name}: invalid {option}: {options[option]!r}")
    for option, others in _REQUIRED.items():
        for other in others:
            if option in options and other not in options:
                raise InvalidArgument(f'create {name}: missing required option: "{other}"')
    if "size" in options:
        raise InvalidArgument(f"create {name}: quota size requested but no quota support")


def parse(options: Mapping[str, str]) -> Request:
    """The mount that checked options ask for."""
    flags = propagation = 0
    data = []
    for word in options.get("o", "").split(","):
        if word in _BITS:
            flags |= _BITS[word]
        elif word in _OPPOSITES:
            flags &= ~_BITS[_OPPOSITES[word]]
        elif word in _KINDS or (word[1:] in _KINDS and word[0] == "r"):
            deep = word not in _KINDS
            propagation = _KINDS[word[deep:]] | (m.MS_REC if deep else 0)
        elif word and word != "defaults":
            data.append(word)
    return Request(
        device=options["device"],
        type=options["type"],
        flags=flags,
        propagation=propagation,
        data=",".join(data),
    )


def mount_volume(options: Mapping[str, str], path: str) -> None:
    """Mount as asked on ``path``, which nothing is mounted on. Blocks, on a network's server for as long as
    the kernel has patience. InvalidArgument in Docker's words; nothing is mounted then."""
    asked = parse(options)
    wrong = f"error while mounting volume '{path}': "
    try:
        asked = _resolved(asked)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InvalidArgument(f"{wrong}error resolving passed in network volume address: {why}") from error
    try:
        m.mount(asked.device, path, asked.type, asked.flags, asked.data)
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        shown = f"mount {asked.device}:{path}"
        shown += f", flags: {asked.flags:#x}" if asked.flags else ""
        shown += ", data: " + _SECRET.sub(r"\1=********", asked.data) if asked.data else ""
        raise InvalidArgument(f"{wrong}failed to mount local volume: {shown}: {why}") from error
    try:
        if asked.propagation:
            m.mount("", path, "", asked.propagation)
        # A bind takes no notice of other flags at first.
        if asked.flags & m.MS_BIND and asked.flags & ~(m.MS_BIND | m.MS_REC):
            m.mount("", path, "", (asked.flags & ~m.MS_REC) | m.MS_REMOUNT)
    except OSError as error:
        unmount_volume(path)
        why = os.strerror(error.errno or 0).lower()
        raise InvalidArgument(f"{wrong}failed to mount local volume: {why}") from error


def unmount_volume(path: str) -> None:
    """Take away everything that is mounted on ``path``; succeeds if nothing is. What is open stays usable."""
    while is_mounted(path):
        try:
            m.unmount(path, m.MNT_DETACH)
        except OSError as error:
            raise Internal(f"unmount {path}: {os.strerror(error.errno or 0).lower()}") from error


def is_mounted(path: str) -> bool:
    """Whether something is mounted on ``path``."""
    # Not looked at itself: its server may be gone.
    shown = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    for character in ("\\", " ", "\t", "\n"):
        shown = shown.replace(character, f"\\{ord(character):03o}")
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        return any(line.split(" ", 5)[4] == shown for line in file)


def _resolved(asked: Request) -> Request:
    """The request with a server's address in place of its name, which the kernel cannot look up."""
    words = asked.data.split(",")
    if asked.type.startswith("nfs"):
        name = next((word[5:] for word in words if word.startswith("addr=")), "")
    elif asked.type == "cifs":
        name = asked.device.removeprefix("//").partition("/")[0]
        name = "" if any(word.startswith(("addr=", "ip=")) for word in words) else name
    else:
        return asked
    if not name:
        return asked
    with suppress(ValueError):
        ipaddress.ip_address(name)
        if asked.type.startswith("nfs"):
            return asked
    try:
        address = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0]
    except socket.gaierror as error:
        raise OSError(0, f"lookup {name}: no such host") from error
    kept = [word for word in words if word and not word.startswith("addr=")]
    data = ",".join((*kept, f"addr={address}"))
    return Request(
        device=asked.device,
        type=asked.type,
        flags=asked.flags,
        propagation=asked.propagation,
        data=data,
    )


class Marks:
    """Who uses which volume, as files of a directory that is gone after a reboot, as mounts are.

    A mark is made before a volume is mounted for somebody and removed after it was unmounted, so that a
    daemon that starts knows whatever the last one may have left.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def all(self) -> dict[str, set[str]]:
        """The holders by volume."""
        found: dict[str, set[str]] = {}
        with suppress(FileNotFoundError):
            for name in os.listdir(self._directory):
                found[name] = set(os.listdir(os.path.join(self._directory, name)))
        return found

    def add(self, name: str, holder: str) -> None:
        place = os.path.join(self._directory, name)
        os.makedirs(place, mode=0o700, exist_ok=True)
        with open(os.path.join(place, holder), "w"):
            pass

    def remove(self, name: str, holder: str) -> None:
        """Succeeds if it is gone."""
        place = os.path.join(self._directory, name)
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(place, holder))
        with suppress(OSError):
            os.rmdir(place)
