"""The image ``sampan/base``: made from the host's own programs, so that a first container needs no registry.

Theory: a static busybox brings a whole small system; where there is none, the shell and the coreutils come
with the libraries that the dynamic loader lists for them. The result is a tar stream, like any import.

Law: the same host makes the same bytes: members are sorted, times are zero, owners are root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from sampan.errors import Unavailable
from sampan.wire import tar

NAME = "sampan/base"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_DIRECTORIES = (
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/tmp", 0o1777),
)
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:::::::\nnobody:*:::::::\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/os-release": 'ID=sampan\nNAME="Sampan base"\nPRETTY_NAME="Sampan base"\n',
}
_MODES = {"etc/shadow": 0o640}
_PROGRAMS = [
    "[",
    "arch",
    "base64",
    "basename",
    "bash",
    "cat",
    "chgrp",
    "chmod",
    "chown",
    "cksum",
    "comm",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dir",
    "dirname",
    "du",
    "echo",
    "env",
    "expand",
    "expr",
    "factor",
    "false",
    "find",
    "fmt",
    "fold",
    "free",
    "grep",
    "groups",
    "gzip",
    "head",
    "hostname",
    "id",
    "install",
    "join",
    "kill",
    "link",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "mktemp",
    "more",
    "mount",
    "mv",
    "nice",
    "nl",
    "nohup",
    "nproc",
    "od",
    "paste",
    "pathchk",
    "pgrep",
    "pinky",
    "pkill",
    "pr",
    "printenv",
    "printf",
    "ps",
    "ptx",
    "pwd",
    "readlink",
    "realpath",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sh",
    "sha1sum",
    "sha256sum",
    "sha512sum",
    "shred",
    "shuf",
    "sleep",
    "sort",
    "split",
    "stat",
    "stdbuf",
    "stty",
    "sum",
    "sync",
    "tac",
    "tail",
    "tar",
    "tee",
    "test",
    "timeout",
    "top",
    "touch",
    "tr",
    "true",
    "truncate",
    "tsort",
    "tty",
    "umount",
    "uname",
    "unexpand",
    "uniq",
    "unlink",
    "uptime",
    "users",
    "vdir",
    "wc",
    "which",
    "who",
    "whoami",
    "xargs",
    "yes",
]
_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/lib/ld-linux-armhf.so.3")
_BUSYBOX = ("/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static", "/usr/bin/busybox-static")
_SECONDS = 10


def created_ns() -> int:
    """When this host's programs were last changed, as far as one of them tells: the age of the image."""
    program = next((path for path in (*_BUSYBOX, "/bin/sh") if os.path.exists(path)), "/")
    return os.stat(program).st_mtime_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """``source``: a file of the host; ``link``: a symbolic link's target; else ``data``, or a directory."""

    mode: int
    source: str = ""
    link: str = ""
    data: bytes | None = None


def archive() -> Iterator[bytes]:
    """The tar stream of the base image's only layer; Unavailable if the host has no shell to give."""
    entries: dict[str, _Entry] = {name: _Entry(mode=mode) for name, mode in _DIRECTORIES}
    for name, text in _FILES.items():
        entries[name] = _Entry(mode=_MODES.get(name, 0o644), data=text.encode())
    busybox = next((path for path in _BUSYBOX if _is_static(path)), None)
    entries |= _busybox_programs(busybox) if busybox else _host_programs()
    for name in sorted(_with_parents(entries)):
        yield from _member(name, entries.get(name) or _Entry(mode=0o755))
    yield tar.END


def _is_static(path: str) -> bool:
    """Whether ``path`` is a program that runs without a loader: an ELF file with no interpreter segment."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    if head[:5] != b"\x7fELF\x02":
        return False
    offset, size, count = (
        int.from_bytes(head[32:40], "little"),
        int.from_bytes(head[54:56], "little"),
        int.from_bytes(head[56:58], "little"),
    )
    types = [int.from_bytes(head[at : at + 4], "little") for at in range(offset, offset + size * count, size)]
    interpreter = 3
    return bool(types) and interpreter not in types


def _busybox_programs(path: str) -> dict[str, _Entry]:
    applets = _output(path, "--list").split()
    entries = {f"bin/{name}": _Entry(mode=0o777, link="busybox") for name in applets if "/" not in name}
    entries["bin/busybox"] = _Entry(mode=0o755, source=path)
    entries["usr/bin/env"] = _Entry(mode=0o777, link="../../bin/busybox")
    return entries


def _host_programs() -> dict[str, _Entry]:
    """The host's shell and tools under /bin, and their libraries where the loader looks for them."""
    entries: dict[str, _Entry] = {}
    loader = next((path for path in _LOADERS if os.path.exists(path)), None)
    for name in _PROGRAMS:
        found = shutil.which(name, path=PATH)
        if found is None:
            continue
        program = os.path.realpath(found)
        if not _is_static(program):
            if loader is None:
                continue
            libraries = _libraries(loader, program)
            if libraries is None:
                continue  # a script, or a program of another architecture
            entries |= libraries
        entries[f"bin/{name}"] = _Entry(mode=0o755, source=program)
    if "bin/sh" not in entries:
        raise Unavailable("cannot build sampan/base: this host has neither a static busybox nor a shell")
    entries["usr/bin/env"] = _Entry(mode=0o777, link="../../bin/env")
    return entries


def _libraries(loader: str, program: str) -> dict[str, _Entry] | None:
    """What ``ld.so --list`` names for a program, the loader included; None if it is not for this loader."""
    try:
        listing = _output(loader, "--list", program)
    except Unavailable:
        return None
    entries = {loader.lstrip("/"): _Entry(mode=0o755, source=os.path.realpath(loader))}
    for line in listing.splitlines():
        _, arrow, rest = line.partition(" => ")
        path = rest.partition(" (")[0].strip()
        if arrow and path.startswith("/"):
            entries[path.lstrip("/")] = _Entry(mode=0o755, source=os.path.realpath(path))
    return entries


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"cannot build sampan/base: {command[0]}: {error}") from error
    return done.stdout


def _with_parents(entries: dict[str, _Entry]) -> set[str]:
    names = set(entries)
    for name in entries:
        while "/" in name:
            name = name.rpartition("/")[0]
            names.add(name)
    return names


def _member(name: str, entry: _Entry) -> Iterator[bytes]:
    encoded = os.fsencode(name)
    if entry.link:
        yield tar.header(
            tar.Member(name=encoded, kind=tar.SYMLINK, mode=entry.mode, link=os.fsencode(entry.link))
        )
    elif entry.source or entry.data is not None:
        data = entry.data
        if data is None:
            with open(entry.source, "rb") as file:
                data = file.read()
        yield tar.header(tar.Member(name=encoded, mode=entry.mode, size=len(data)))
        yield data + bytes(tar.padding(len(data)))
    else:
        yield tar.header(tar.Member(name=encoded + b"/", kind=tar.DIRECTORY, mode=entry.mode))
