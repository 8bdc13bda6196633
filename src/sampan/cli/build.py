"""``build`` and ``builder``: a context is sent, and what the engine says is shown.

The engine's stream is Docker's classic one; what it has no word for is refused here, naming what is lacking.
"""

from __future__ import annotations

import os

from sampan.cli.buildinputs import agents, secrets
from sampan.cli.command import Command, Exit, Options
from sampan.cli.context import Context, out, write
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from sampan.cli.buildcontext import Found
    from sampan.cli.buildfolder import Folder

    Messages = Iterator[Any]

_PIECE = 1 << 18
_LACKING = {
    "output": "other results than an image are not offered yet: use save, or create and cp",
    "cache-to": "a cache elsewhere is not offered yet",
    "build-context": "contexts by name are not offered yet: put the files into the context, or into an image",
    "push": "a push by the builder is not offered: push when it is built",
    "attest": "attestations are not offered yet",
    "provenance": "provenance is not offered yet",
    "sbom": "lists of materials are not offered yet",
}
_PROGRESS = ("", "auto", "plain", "tty", "quiet")


def _build(context: Context, options: Options, arguments: list[str]) -> int:
    for flag, reason in _LACKING.items():
        if options[flag] and options[flag] != "false":
            raise Failure(f"--{flag}: {reason}")
    if options["progress"] not in _PROGRESS:
        raise Failure(f"--progress: {options['progress']} is not offered; use plain")
    _forget(options["iidfile"])
    quiet = options["quiet"] or options["progress"] == "quiet"
    said = _Said(quiet=quiet)
    wanted = _Wanted(options, arguments[0], said)
    identity = _follow(wanted.messages(context), said)
    if options["iidfile"]:
        if not identity:
            raise Failure(f"server did not provide an image ID. Cannot write {options['iidfile']}")
        _write_identity(options["iidfile"], identity)
    if quiet:
        out(identity)
    return 0


class _Wanted:
    """A build as the command line asks for it."""

    def __init__(self, options: Options, path: str, said: _Said) -> None:
        self._options = options
        self._path = path
        self._said = said
        self.secrets = secrets(options["secret"]) if options["secret"] else {}
        self.agents = agents(options["ssh"]) if options["ssh"] else {}
        self._found = None
        if path != "-" and not _is_remote(path):
            from sampan.cli.buildcontext import find

            self._found = find(path, options["file"], _input)

    @property
    def _needs_session(self) -> bool:
        return bool(self.secrets or self.agents)

    def messages(self, context: Context) -> Messages:
        """What the engine tells. One that knows no sessions is sent the whole context."""
        from sampan.client.api import ApiError

        if self._found is None and not self._needs_session:
            return self._classic(context)
        dockerfile = self._options["file"] if self._found is None else self._found.dockerfile
        path = _target(self._options, dockerfile, self._path).replace("/build?", "/build/session?", 1)
        try:
            fd, early, _ = context.client.hijack(path, headers=_credentials(context))
        except ApiError as error:
            if error.status != 404 or self._needs_session:
                raise
            return self._classic(context)
        return self._conversation(fd, early)

    def _conversation(self, fd: int, early: bytes) -> Messages:
        from sampan.cli.buildsession import Answers, Conversation

        hello, folders, archive = self._context()
        answers = Answers(contexts=folders, archive=archive, secrets=self.secrets, agents=self.agents)
        conversation = Conversation(fd, early, hello, answers)
        try:
            yield from conversation.messages()
        finally:
            conversation.close()

    def _context(self) -> tuple[dict[str, Any], dict[str, Folder], Iterator[bytes] | None]:
        """What the session begins with, the folders, and the archive that there is instead."""
        if self._found is not None:
            hello = {"dockerfile": self._found.text(), "name": self._found.shown, "folder": self._found.key}
            return hello, {"": self._found.watched()}, None
        if _is_remote(self._path):
            return {}, {}, None
        _, pieces = _from_input(self._options["file"], self._said)
        return {}, {}, pieces

    def _classic(self, context: Context) -> Messages:
        dockerfile, pieces = _context(self._path, self._options["file"], self._said, self._found)
        if self._options["compress"]:
            pieces = _compressed(pieces)
        return _sent(context, _target(self._options, dockerfile, self._path), pieces)


class _Said:
    """Shows what is said, or with ``quiet`` keeps it until something fails."""

    __slots__ = ("_kept", "_quiet")

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._kept: list[str] = []

    def __call__(self, text: str) -> None:
        if self._quiet:
            self._kept.append(text)
        else:
            write(1, text)

    def failed(self) -> None:
        """Show what was kept."""
        write(2, "".join(self._kept))


# ------------------------------------------------------------------ what is sent


def _context(path: str, file: str, said: _Said, found: Found | None) -> tuple[str, Iterator[bytes]]:
    """The Dockerfile's name, and the context as an archive."""
    if path == "-":
        return _from_input(file, said)
    if found is None:
        return file, iter(())
    sender = found.sender()

    def pieces() -> Iterator[bytes]:
        yield from sender.pieces(found.extra)
        _tell_size(sender.size, said)

    return found.dockerfile, pieces()


def _is_remote(path: str) -> bool:
    """Whether the engine fetches the context itself."""
    return path.startswith(("http://", "https://", "git://", "git@", "ssh://", "github.com/"))


def _input() -> bytes:
    return b"".join(_pieces_of(0))


def _pieces_of(fd: int) -> Iterator[bytes]:
    while data := os.read(fd, _PIECE):
        yield data


def _from_input(file: str, said: _Said) -> tuple[str, Iterator[bytes]]:
    """An archive, or a Dockerfile without any files."""
    from sampan.cli.buildcontext import is_archive, single

    if file == "-":
        raise Failure("invalid argument: can't use stdin for both build context and dockerfile")
    start = b""
    while len(start) < 512 and (data := os.read(0, _PIECE)):
        start += data
    if is_archive(start):
        return file, _counted(start, said)
    if file:
        raise Failure(
            "unable to prepare context: ambiguous Dockerfile source: both stdin and flag correspond to "
            "Dockerfiles"
        )
    data = single(start + _input())
    _tell_size(len(data), said)
    return "", iter((data,))


def _counted(start: bytes, said: _Said) -> Iterator[bytes]:
    size = len(start)
    yield start
    for piece in _pieces_of(0):
        size += len(piece)
        yield piece
    _tell_size(size, said)


def _tell_size(size: int, said: _Said) -> None:
    from sampan.cli.human import size as shown

    said(f"Sending build context to Docker daemon  {shown(size)}\r\r\n")


def _compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    import zlib

    packer = zlib.compressobj(wbits=31)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def _target(options: Options, dockerfile: str, path: str) -> str:
    """The request's path with its parameters, of which some are repeated."""
    from sampan.client.http import quote
    from sampan.wire import document

    pairs = [("t", name) for name in options["tag"]]
    pairs += [("allow", right) for right in _each(options["allow"])]
    pairs += [("extrahosts", host) for host in options["add-host"]]
    documents = {
        "buildargs": _arguments(options["build-arg"]),
        "labels": {name: value for name, _, value in (text.partition("=") for text in options["label"])},
        "cachefrom": _each(options["cache-from"]),
        "ulimits": options["ulimit"],
        "securityopt": _each(options["security-opt"]),
    }
    pairs += [(name, document.encode(value)) for name, value in documents.items() if value]
    plain = {
        "dockerfile": dockerfile,
        "remote": path if _is_remote(path) else "",
        "target": options["target"],
        "networkmode": options["network"],
        "platform": _platform(options["platform"]),
        "isolation": options["isolation"],
        "cgroupparent": options["cgroup-parent"],
        "cpusetcpus": options["cpuset-cpus"],
        "cpusetmems": options["cpuset-mems"],
        "cpushares": options["cpu-shares"],
        "cpuperiod": options["cpu-period"],
        "cpuquota": options["cpu-quota"],
        "memory": options["memory"],
        "memswap": options["memory-swap"],
        "shmsize": options["shm-size"],
        "squash": int(options["squash"]),
        "check": int(options["check"]),
        "nocache": int(options["no-cache"]),
        "pull": int(options["pull"]),
        "rm": int(options["rm"]),
        "forcerm": int(options["force-rm"]),
    }
    pairs += [(name, str(value)) for name, value in plain.items() if value]
    return "/build?" + "&".join(f"{name}={quote(value)}" for name, value in pairs)


def _each(given: list[list[str]]) -> list[str]:
    """What was given between commas and by several flags."""
    return [text for texts in given for text in texts]


def _arguments(given: list[str]) -> dict[str, str | None]:
    """Build arguments; one without a value has that of our environment, or none."""
    found: dict[str, str | None] = {}
    for text in given:
        name, sign, value = text.partition("=")
        found[name] = value if sign else os.environ.get(name)
    return found


def _platform(text: str) -> str:
    if not text:
        return ""
    from sampan.cli.references import platform

    return platform(text)


def tag(text: str) -> str:
    """A name for the image. ValueError in Docker's words."""
    from sampan.cli.references import check

    try:
        check(text)
    except Failure as error:
        raise ValueError(str(error)) from None
    return text


def _credentials(context: Context) -> dict[str, str]:
    settings = context.settings
    if not settings.get("auths") and not settings.get("credHelpers"):
        return {}
    from sampan.cli.credentials import all_headers

    return all_headers(settings)


def _sent(context: Context, path: str, pieces: Iterator[bytes]) -> Messages:
    from sampan.client.api import json_stream

    headers = _credentials(context)
    answer = context.client.upload(path, None, pieces, kind="application/x-tar", headers=headers)
    return json_stream(answer)


# ------------------------------------------------------------------ what is shown


def _follow(messages: Messages, said: _Said) -> str:
    """Show the stream; the image's id. A failed step ends the program with the step's own exit code."""
    identity = ""
    for message in messages:
        if "stream" in message:
            said(message["stream"])
        elif "aux" in message:
            identity = (message["aux"] or {}).get("ID") or identity
        elif "error" in message or "errorDetail" in message:
            said.failed()
            detail = message.get("errorDetail") or {}
            text = detail.get("message") or message.get("error") or ""
            raise Exit(detail.get("code") or 1, text)
        elif message.get("status"):
            name = message.get("id")
            said(f"{name}: {message['status']}\n" if name else f"{message['status']}\n")
    return identity


def _forget(path: str) -> None:
    if path:
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            raise Failure(f"Removing image ID file: remove {path}: {why}") from None


def _write_identity(path: str, identity: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise Failure(f"open {path}: {os.strerror(error.errno or 0).lower()}") from None
    write(fd, identity)
    os.close(fd)


def _prune(context: Context, options: Options, _arguments: list[str]) -> int:
    from sampan.cli.human import size
    from sampan.cli.listing import filtered, filters
    from sampan.cli.prune import confirmed

    what = "all build cache" if options["all"] else "all dangling build cache"
    asked = f"WARNING! This will remove {what}. Are you sure you want to continue?"
    if not options["force"] and not confirmed(asked):
        return 0
    query = filtered(filters(options))
    if options["all"]:
        query["all"] = "1"
    if options["keep-storage"]:
        query["keep-storage"] = query["reserved-space"] = str(options["keep-storage"])
    found = context.client.call("POST", "/build/prune", query) or {}
    removed = found.get("CachesDeleted") or []
    if removed:
        out("Deleted build cache objects:\n" + "\n".join(removed) + "\n")
    out(f"Total reclaimed space: {size(found.get('SpaceReclaimed') or 0)}")
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "build",
        "[OPTIONS] PATH | URL | -",
        "Build an image from a Dockerfile",
        _build,
        flags=(
            ("", "add-host", "host-list", "Add a host name and its address (host:ip)"),
            ("", "build-arg", "env", "Set a variable of the build"),
            ("", "cache-from", "strings", "Images whose steps may be taken"),
            ("", "check", "bool", "Tell what is better not written in the Dockerfile, and build nothing"),
            ("", "cgroup-parent", "string", "Cgroup under which those of RUN instructions are made"),
            ("", "compress", "bool", "Compress the build context using gzip"),
            ("", "cpu-period", "int", "Period of the CPU bandwidth limit, in microseconds"),
            ("", "cpu-quota", "int", "CPU time allowed in each period, in microseconds"),
            ("c", "cpu-shares", "int", "Relative weight of CPU time"),
            ("", "cpuset-cpus", "string", "CPUs that may be used (0-3, 0,1)"),
            ("", "cpuset-mems", "string", "Memory nodes that may be used (0-3, 0,1)"),
            ("", "disable-content-trust", "bool", "Skip verification of signatures", "true"),
            ("f", "file", "string", 'Path of the Dockerfile ("PATH/Dockerfile" if not given)'),
            ("", "force-rm", "bool", "Remove intermediate containers also after a failure"),
            ("", "iidfile", "string", "Write the image's ID to this file"),
            ("", "isolation", "string", "Isolation technology (Windows only)"),
            ("", "label", "label", "Set a label of the image"),
            ("m", "memory", "bytes", "Memory limit"),
            ("", "memory-swap", "swap", "Limit of memory and swap together, -1 for unlimited swap"),
            ("", "network", "string", "Network of RUN instructions", "default"),
            ("", "no-cache", "bool", "Run every step"),
            ("", "platform", "string", "Platform to build for"),
            ("", "pull", "bool", "Look for newer versions of base images"),
            ("q", "quiet", "bool", "Print only the image's ID"),
            ("", "rm", "bool", "Remove intermediate containers after a success", "true"),
            ("", "security-opt", "strings", "Security options; userns=host has RUN make device nodes"),
            ("", "shm-size", "bytes", "Size of /dev/shm"),
            ("", "squash", "bool", "Make one layer of all new ones"),
            ("t", "tag", "image-name", "Name of the image, and a tag if wanted (name:tag)"),
            ("", "target", "string", "Stage to build"),
            ("", "ulimit", "ulimit", "Resource limits"),
            ("", "allow", "strings", "Rights that RUN may ask for (security.insecure, network.host)"),
            ("", "attest", "list", ""),
            ("", "build-context", "list", ""),
            ("", "cache-to", "list", ""),
            ("o", "output", "list", ""),
            ("", "progress", "string", "How progress is shown: auto or plain", "auto"),
            ("", "provenance", "string", ""),
            ("", "push", "bool", ""),
            ("", "sbom", "string", ""),
            ("", "secret", "list", "Secret of the build (id=ID,src=FILE or id=ID,env=VARIABLE)"),
            ("", "ssh", "list", "Agent to forward to the build (default, or ID=SOCKET)"),
            ("", "load", "bool", ""),
        ),
        least=1,
        most=1,
        aliases=("image build", "build", "builder build"),
    ),
    Command(
        "builder prune",
        "",
        "Remove build cache",
        _prune,
        flags=(
            ("a", "all", "bool", "Remove all of it that nothing uses, not only what dangles"),
            ("", "filter", "filter", 'Remove only what meets the conditions (e.g. "until=24h")'),
            ("f", "force", "bool", "Do not ask"),
            ("", "keep-storage", "bytes", "Size of the cache that may stay"),
        ),
        most=0,
    ),
)
