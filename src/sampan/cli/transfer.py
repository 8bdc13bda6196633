"""Images in and out as archives: ``load``, ``save`` and ``import``."""

from __future__ import annotations

import os

from sampan.cli.command import Command, Exit, Options
from sampan.cli.context import Context, out, write
from sampan.cli.delivery import deliver, not_to_a_terminal
from sampan.cli.progress import Progress
from sampan.cli.references import platform_document
from sampan.client.api import json_stream
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 1 << 17
ARCHIVE = "application/x-tar"


def _pieces(fd: int) -> Iterator[bytes]:
    while piece := os.read(fd, PIECE):
        yield piece


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"open {path}: {os.strerror(error.errno or 0).lower()}") from error


def _load(context: Context, options: Options, _arguments: list[str]) -> int:
    path = options["input"]
    fd = _opened(path) if path else 0
    if not path and os.isatty(0):
        raise Exit(1, "requested load from stdin, but stdin is empty")
    quiet = options["quiet"] or not os.isatty(1)
    query = {"quiet": "1" if quiet else "0"}
    if options["platform"]:
        query["platform"] = platform_document(options["platform"], "invalid platform: ")
    answer = context.client.upload("/images/load", query, _pieces(fd), kind=ARCHIVE)
    if "json" in answer.headers.get("content-type", ""):
        progress = Progress(1)
        for message in json_stream(answer):
            progress.show(message)
    else:
        for piece in answer.pieces():
            write(1, piece)
    return 0


def _save(context: Context, options: Options, arguments: list[str]) -> int:
    path = options["output"]
    wanted = platform_document(options["platform"], "invalid platform: ") if options["platform"] else ""
    not_to_a_terminal(path)
    folder = os.path.dirname(os.path.abspath(path)) if path else "/"
    if path and not os.path.isdir(folder):
        where = os.path.dirname(path)
        raise Failure(f"failed to save image: invalid output path: stat {where}: no such file or directory")
    # the query repeats the key, which a mapping cannot: names are joined into one target
    from sampan.client.http import quote

    names = "&".join(f"names={quote(name)}" for name in arguments)
    if wanted:
        names += f"&platform={quote(wanted)}"
    answer = context.client.open("GET", f"/images/get?{names}")
    deliver(answer, path)
    return 0


def _import(context: Context, options: Options, arguments: list[str]) -> int:
    source, reference = arguments[0], arguments[1] if len(arguments) > 1 else ""
    query = {"fromSrc": "-"}
    if reference:
        from sampan.cli.references import check

        check(reference)
        query["repo"] = reference
    if options["message"]:
        query["message"] = options["message"]
    if options["platform"]:
        query["platform"] = options["platform"]
    remote = source.startswith(("http://", "https://"))
    pieces: Iterator[bytes] = iter(())
    if remote:
        query["fromSrc"] = source
    elif source == "-":
        pieces = _pieces(0)
    else:
        pieces = _pieces(_opened(source))
    path = "/images/create"
    if options["change"]:
        from sampan.client.http import quote

        path += "?" + "&".join(f"changes={quote(change)}" for change in options["change"])
    answer = context.client.upload(path, query, pieces, kind="text/plain")
    progress = Progress(1)
    for message in json_stream(answer):
        if set(message) == {"status"}:  # the new image's id
            out(message["status"])
        else:
            progress.show(message)
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "load",
        "[OPTIONS]",
        "Load an image from a tar archive or STDIN",
        _load,
        flags=(
            ("i", "input", "string", "Read from this archive, not from STDIN"),
            ("", "platform", "string", "Load only this platform"),
            ("q", "quiet", "bool", "Do not show progress"),
        ),
        most=0,
        aliases=("image load", "load"),
    ),
    Command(
        "save",
        "[OPTIONS] IMAGE [IMAGE...]",
        "Save one or more images to a tar archive (streamed to STDOUT by default)",
        _save,
        flags=(
            ("o", "output", "string", "Write to this file, not to STDOUT"),
            ("", "platform", "string", "Save only this platform"),
        ),
        least=1,
        aliases=("image save", "save"),
    ),
    Command(
        "import",
        "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        "Import the contents from a tarball to create a filesystem image",
        _import,
        flags=(
            ("c", "change", "list", "Apply a Dockerfile instruction to the image"),
            ("m", "message", "string", "Set the message of the image's history"),
            ("", "platform", "string", "Set the image's platform"),
        ),
        least=1,
        aliases=("image import", "import"),
    ),
)
