"""``system report``: what a bug report needs, in one file; this engine's own command.

Law: no secret leaves. Whatever a user may have put a password into is left out or replaced: the values of
environment variables and labels, commands and their arguments, options of log drivers and volumes, the user
part of addresses. Names, ids, sizes, states and settings stay: they are what a report is for.
"""

from __future__ import annotations

import io
import os
import platform
import re
import sys
import tarfile
import time

from sampan import __version__
from sampan.cli.command import Command, Options
from sampan.cli.context import Context, err, out
from sampan.errors import Failure
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HIDDEN = "***"

_ASKED = (
    # (file, path of the API, query)
    ("version.json", "/version", None),
    ("info.json", "/info", None),
    ("containers.json", "/containers/json", {"all": "1", "size": "1"}),
    ("images.json", "/images/json", {"all": "1"}),
    ("networks.json", "/networks", None),
    ("volumes.json", "/volumes", None),
    ("disk.json", "/system/df", None),
)

_HOST_FILES = (
    "/proc/version",
    "/proc/cmdline",
    "/proc/meminfo",
    "/proc/self/mountinfo",
    "/proc/self/cgroup",
    "/proc/cgroups",
    "/proc/filesystems",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/user/max_user_namespaces",
    "/etc/os-release",
)

_LOG_BYTES = 1 << 20
"""How much of the end of the engine's log is taken."""

# Fields whose values may be anything, by their names in the API's documents.
_MAPS = frozenset(("Labels", "Options", "Annotations", "DriverOpts", "IPAMOptions", "Sysctls"))
_LISTS = frozenset(("Env", "Cmd", "Entrypoint", "Args", "Test", "OnBuild", "Shell"))
_TEXTS = frozenset(("Command", "Path", "Comment", "Author", "CreatedBy"))

_USER = re.compile(r"(\w+://)[^/\s@]+@")


def _report(context: Context, options: Options, _arguments: list[str]) -> int:
    name = time.strftime("sampan-report-%Y%m%d-%H%M%S")
    target = options["output"] or f"{name}.tar.gz"
    if target == "-" and os.isatty(1):
        raise Failure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    data = _archive(context, name)
    if target == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return 0
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Failure(f"failed to write {target}: {(error.strerror or str(error)).lower()}") from None
    with open(fd, "wb") as file:
        file.write(data)
    out(target)
    err(
        "Not in it: commands, values of variables and labels, passwords in addresses. Look before sending it."
    )
    return 0


def _archive(context: Context, name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, content in _gathered(context):
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _gathered(context: Context) -> list[tuple[str, bytes]]:
    """(path in the archive, content). What cannot be had is a file that says why."""
    found = [
        (
            "client.json",
            _json({"version": __version__, "python": sys.version, "host": list(platform.uname())}),
        )
    ]
    answers: dict[str, Any] = {}
    for path, asked, query in _ASKED:
        answers[path], content = _asked(context, asked, query)
        found.append((f"engine/{path}", content))
    for container in answers["containers.json"] or ():
        key = container["Id"]
        found.append(
            (f"engine/containers/{key[:12]}.json", _asked(context, f"/containers/{key}/json", None)[1])
        )
    if context.client.address.path:  # an engine elsewhere has another host
        found += [(f"host{path}", _file(path)) for path in _HOST_FILES]
        log = os.path.join(os.path.dirname(context.client.address.path), "daemon.log")
        found.append(("engine/daemon.log", _file(log)))
    return found


def _asked(context: Context, path: str, query: dict[str, str] | None) -> tuple[Any, bytes]:
    try:
        answer = context.client.call("GET", path, query)
    except Failure as error:
        return None, f"{error}\n".encode()
    return answer, _json(without_secrets(answer))


def _json(value: object) -> bytes:
    return document.encode(value).encode()


def _file(path: str) -> bytes:
    """The file, or its end, with no user in any address; why it cannot be read, where it cannot."""
    try:
        with open(path, "rb") as file:
            if os.path.isfile(path) and (size := os.fstat(file.fileno()).st_size) > _LOG_BYTES:
                file.seek(size - _LOG_BYTES)
            text = file.read(_LOG_BYTES).decode("utf-8", "replace")
    except OSError as error:
        return f"{path}: {error.strerror}\n".encode()
    return _USER.sub(rf"\1{_HIDDEN}@", text).encode()


def without_secrets(value: Any, field: str = "") -> Any:
    """The document with what may be secret replaced by ``***``; names of variables and labels stay."""
    if field in _TEXTS and isinstance(value, str):
        return _HIDDEN if value else ""
    if isinstance(value, str):
        return _USER.sub(rf"\1{_HIDDEN}@", value)
    if isinstance(value, list):
        if field in _LISTS:
            return [_variable(item) if field == "Env" else _HIDDEN for item in value]
        return [without_secrets(item, field) for item in value]
    if isinstance(value, dict):
        if field in _MAPS or (field == "Config" and _plain(value)):
            return dict.fromkeys(value, _HIDDEN)
        return {key: without_secrets(item, key) for key, item in value.items()}
    return value


def _plain(value: dict[str, Any]) -> bool:
    """Options of a log driver are texts by name under ``Config``, where a container has its settings."""
    return all(isinstance(item, str) for item in value.values())


def _variable(text: str) -> str:
    name, equals, _ = text.partition("=")
    return f"{name}={_HIDDEN}" if equals else name


COMMANDS: tuple[Command, ...] = (
    Command(
        "system report",
        "[OPTIONS]",
        "Gather what a bug report needs, without secrets, into one archive",
        _report,
        flags=(("o", "output", "string", 'Write to a file of this name, or to STDOUT ("-")'),),
        most=0,
    ),
)
