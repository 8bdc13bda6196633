"""``cp``: files between a container and the host, or a tar archive on a standard stream."""

from __future__ import annotations

import os

from sampan.cli import copying
from sampan.cli.command import Command, Exit, Options
from sampan.cli.context import PROGRAM, Context, err, write
from sampan.client.api import ApiError, segment
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sampan.client.connection import Answer

_PIECE = 1 << 18
_DIRECTORY, _LINK = 1 << 31, 1 << 27  # bits of Go's fs.FileMode
_DEVICE, _IRREGULAR = 1 << 26, 1 << 19
_CLEAR = "\r\x1b[2K"
_INTERVAL = 0.075  # seconds between two updates of the progress line


def _cp(context: Context, options: Options, arguments: list[str]) -> int:
    (source_container, source), (target_container, target) = map(copying.argument, arguments)
    quiet = options["quiet"] if "quiet" in options.given else not os.isatty(1)
    if source_container and target_container:
        raise Failure("copying between containers is not supported")
    if source_container:
        return _out(context, source_container, source, target, follow=options["follow-link"], quiet=quiet)
    if target_container:
        return _in(context, options, source, target_container, target, quiet=quiet)
    raise Failure("must specify at least one container source")


# ------------------------------------------------------------------ out of a container


def _out(context: Context, container: str, source: str, target: str, *, follow: bool, quiet: bool) -> int:
    if target != "-":
        target = copying.absolute(target)
        copying.check_output(target)
    name = ""
    if follow:
        found = _stat(context, container, source)
        if found is not None and found["mode"] & _LINK:
            resolved = copying.joined(source, found["linkTarget"])
            source, name = copying.rebased(source, resolved)
    answer = context.client.open("GET", _archive(container), {"path": source})
    if target == "-":
        for piece in answer.pieces():
            write(1, piece)
        return 0
    found = _told(answer)
    if found is None:
        raise Failure("the daemon's answer does not say what it sends")
    end = copying.End(source, exists=True, is_directory=bool(found["mode"] & _DIRECTORY), rebased=name)
    meter = _Meter("Copying from container - ", quiet=quiet)
    failure = None
    try:
        _receive(meter.over(answer.pieces()), end, copying.local_target(target))
    except Failure as error:
        failure = error
    meter.end(target)
    if failure is not None:
        raise failure
    return 0


def _receive(pieces: Iterator[bytes], source: copying.End, target: copying.End) -> None:
    from sampan.sandbox.extract import Rules, Target, extract
    from sampan.sandbox.source import Source

    there = copying.place(source, target)
    base = copying.split(source.path)[1]
    top = "" if base == "/" else base
    rename = None
    # The archive calls its top as the path does; what a followed link was called comes first.
    called = source.rebased or top
    if there.name:
        rename = (top, there.name)
    elif source.rebased:
        rename = (top, called)
    try:
        fd = os.open(there.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"open {there.directory}: {os.strerror(error.errno or 0).lower()}") from error
    os.umask(0)
    rules = Rules(
        keep_kinds=True,
        chown=False,
        roomy=True,
        rename=None if rename is None else (os.fsencode(rename[0]), os.fsencode(rename[1])),
    )
    try:
        extract(
            Source(pieces), Target(fd=fd, anchor=fd, path=b".", shown=os.fsencode(there.directory)), rules
        )
    finally:
        os.close(fd)


# ------------------------------------------------------------------ into a container


def _in(context: Context, options: Options, source: str, container: str, target: str, *, quiet: bool) -> int:
    if source != "-":
        source = copying.absolute(source)
    end = copying.End(target)
    found = _stat(context, container, target)
    if found is not None and found["mode"] & _LINK:
        end.path = copying.joined(target, found["linkTarget"])
        found = _stat(context, container, end.path)
    if found is not None:
        _check_kind(found["mode"], f"{container}:{target}")
        end.exists, end.is_directory = True, bool(found["mode"] & _DIRECTORY)
    query = {"path": end.path, "noOverwriteDirNonDir": "true"}
    if options["archive"]:
        query["copyUIDGID"] = "true"
    if source == "-":
        if not end.is_directory:
            raise Failure(f'destination "{container}:{target}" must be a directory')
        _put(context, container, query, _pieces(0))
        return 0
    own = copying.local_source(source, follow=options["follow-link"])
    there = copying.place(own, end)
    query["path"] = there.directory
    meter = _Meter("Copying to container - ", quiet=quiet)
    failure = None
    try:
        _put(context, container, query, meter.over(_packed(own, there.name)))
    except Failure as error:
        failure = error
    meter.end(f"{container}:{end.path}")
    if failure is not None:
        raise failure
    return 0


def _put(context: Context, container: str, query: dict[str, str], pieces: Iterator[bytes]) -> None:
    answer = context.client.upload(_archive(container), query, pieces, method="PUT", kind="application/x-tar")
    answer.read()


def _packed(source: copying.End, name: str) -> Iterator[bytes]:
    """The archive of a source of the host, made by a child while this process sends it."""
    from sampan.sandbox.pack import Packer

    directory, base = copying.split(source.path)
    called = os.fsencode(name or source.rebased or base)
    read, end = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)
            parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            packer = Packer(end)
            if source.is_directory:
                # The path's own end says whether a link is meant or what it leads to.
                fd = os.open(source.path, os.O_RDONLY | os.O_DIRECTORY)
                packer.tree(fd, called + b"/", called + b"/")
            else:
                packer.file(parent, os.fsencode(base), called)
            packer.finish()
            code = 0
        except BrokenPipeError:
            code = 0  # whoever reads has a reason, and tells it
        except OSError as error:
            err(f"{error.filename or source.path}: {os.strerror(error.errno or 0).lower()}")
        finally:
            os._exit(code)
    os.close(end)
    try:
        yield from _pieces(read)
    finally:
        os.close(read)
        _, status = os.waitpid(child, 0)
    if status:
        raise Exit(1)


def _pieces(fd: int) -> Iterator[bytes]:
    while piece := os.read(fd, _PIECE):
        yield piece


# ------------------------------------------------------------------ what the daemon tells


def _archive(container: str) -> str:
    return f"/containers/{segment(container)}/archive"


def _stat(context: Context, container: str, path: str) -> dict[str, Any] | None:
    """What lies at a path of the container; None where nothing does, or none can be told."""
    try:
        answer = context.client.open("HEAD", _archive(container), {"path": path})
    except ApiError:
        return None
    found = _told(answer)
    context.client.release(answer)
    return found


def _told(answer: Answer) -> dict[str, Any] | None:
    from binascii import a2b_base64

    from sampan.wire.document import decode

    text = answer.headers.get("x-docker-container-path-stat", "")
    found: dict[str, Any] | None = decode(a2b_base64(text)) if text else None
    return found


def _check_kind(mode: int, shown: str) -> None:
    if mode & _DEVICE:
        raise Failure(f'destination "{shown}" must be a directory or a regular file: got a device')
    if mode & _IRREGULAR:
        raise Failure(f'destination "{shown}" must be a directory or a regular file: got an irregular file')


class _Meter:
    """Counts what passes, and says so where somebody looks."""

    __slots__ = ("_header", "_quiet", "_shows", "_size", "_told")

    def __init__(self, header: str, *, quiet: bool) -> None:
        self._header = header
        self._quiet = quiet
        self._shows = not quiet and os.isatty(2)
        self._size = 0
        self._told = 0.0

    def over(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        from time import monotonic

        for piece in pieces:
            self._size += len(piece)
            if self._shows and monotonic() - self._told >= _INTERVAL:
                self._told = monotonic()
                write(2, f"{_CLEAR}{self._header}{self._amount()}")
            yield piece

    def end(self, target: str) -> None:
        """The last line, of a copy that failed as well, as Docker has it."""
        if self._quiet:
            return
        if self._shows:
            write(2, _CLEAR)
        err(f"Successfully copied {self._amount()} to {target}")

    def _amount(self) -> str:
        from sampan.cli.human import size

        return size(self._size, 3)


COMMANDS: tuple[Command, ...] = (
    Command(
        "cp",
        f"[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\t{PROGRAM} cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
        "Copy files/folders between a container and the local filesystem\n\n"
        "A '-' as the source is a tar archive on STDIN, which is extracted to a directory of\n"
        "the container. A '-' as the destination streams a tar archive to STDOUT.",
        _cp,
        flags=(
            ("a", "archive", "bool", "Keep the owners of what is copied"),
            ("L", "follow-link", "bool", "Copy what a symbolic link at the source leads to"),
            ("q", "quiet", "bool", "Do not show progress, nor how much was copied"),
        ),
        least=2,
        most=2,
        aliases=("container cp", "cp"),
    ),
)
