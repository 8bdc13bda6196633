"""``build`` and ``builder``: a context is sent, and what the engine says is shown.

The engine's stream is Docker's classic one; what it has no word for is refused here, naming what is lacking.
"""

from __future__ import annotations

import os

from sampan.cli.buildwanted import Said, Wanted, push
from sampan.cli.command import Command, Exit, Options
from sampan.cli.context import Context, err, out, write
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Messages = Iterator[Any]

_LACKING = {
    "sbom": "lists of materials are not offered yet",
}
_PROGRESS = ("", "auto", "plain", "tty", "quiet", "rawjson")


def _build(context: Context, options: Options, arguments: list[str]) -> int:
    for flag, reason in _LACKING.items():
        if options[flag] and options[flag] != "false":
            raise Failure(f"--{flag}: {reason}")
    if options["progress"] not in _PROGRESS:
        raise Failure(f"--progress: {options['progress']} is not offered; use plain")
    _forget(options["iidfile"])
    wanted = Wanted(options, arguments[0])
    said = wanted.said
    caches = wanted.caches
    if caches is not None:
        caches.bring(context)
    told: dict[str, Any] = {}
    identity = _follow(wanted.messages(context), said, _shown_by(options["progress"]), told)
    if caches is not None and caches.told:
        caches.keep(context, told.get("BuildCache", []))
    if options["iidfile"]:
        if not identity:
            raise Failure(f"server did not provide an image ID. Cannot write {options['iidfile']}")
        _write(options["iidfile"], identity)
    if options["metadata-file"]:
        _write(options["metadata-file"], wanted.metadata(identity, told.get("Provenance")))
    if wanted.keeps and (options["quiet"] or options["progress"] == "quiet"):
        out(identity)
    if wanted.pushes:
        push(context, wanted.names, told.get("Provenance"), quiet=options["quiet"])
    return 0


def tag(text: str) -> str:
    """A name for the image. ValueError in Docker's words."""
    from sampan.cli.references import check

    try:
        check(text)
    except Failure as error:
        raise ValueError(str(error)) from None
    return text


# ------------------------------------------------------------------ what is shown


def _follow(messages: Messages, said: Said, show: Callable[[Any], None] | None, told: dict[str, Any]) -> str:
    """Show the stream; the image's id. What else is told of the result is added to ``told``.

    A failed step ends the program with the step's own exit code.
    """
    identity = ""
    for message in messages:
        if "stream" in message:
            said(message["stream"])
        elif show is not None and ("vertexes" in message or "logs" in message):
            show(message)
        elif "aux" in message:
            aux = message["aux"] or {}
            identity = aux.get("ID") or identity
            told.update(aux)
        elif "error" in message or "errorDetail" in message:
            said.failed()
            detail = message.get("errorDetail") or {}
            text = detail.get("message") or message.get("error") or ""
            raise Exit(detail.get("code") or 1, text)
        elif message.get("status"):
            name = message.get("id")
            said(f"{name}: {message['status']}\n" if name else f"{message['status']}\n")
    return identity


def _shown_by(progress: str) -> Callable[[Any], None] | None:
    """What shows the engine's documents about the steps; None where its words are shown."""
    if progress == "rawjson":
        from sampan.wire import document

        return lambda message: err(document.encode(message))
    if progress == "tty":
        from sampan.cli.buildscreen import Screen

        return Screen().show
    return None


def _forget(path: str) -> None:
    if path:
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            raise Failure(f"Removing image ID file: remove {path}: {why}") from None


def _write(path: str, identity: str) -> None:
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
            (
                "",
                "cache-from",
                "strings",
                "Where steps may come from (an image, type=registry,ref=NAME or type=local,src=DIR)",
            ),
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
            ("", "attest", "list", "What to attest of the image (type=provenance,mode=min|max)"),
            ("", "build-context", "list", "Another context by name (NAME=FOLDER, docker-image://… or a URL)"),
            (
                "",
                "cache-to",
                "list",
                "Where the cache goes (type=inline, registry,ref=NAME or local,dest=DIR)",
            ),
            ("o", "output", "list", "Where the result goes (type=local|tar|oci|docker|image,dest=PATH)"),
            ("", "progress", "string", "How progress is shown: auto, plain, tty, quiet or rawjson", "auto"),
            (
                "",
                "provenance",
                "string",
                "Where the image comes from goes to --metadata-file and with --push (min, max)",
            ),
            ("", "push", "bool", "Push the image by its names when it is built"),
            ("", "metadata-file", "string", "Write what the image is to this file"),
            ("", "explain", "bool", "Tell of each step that ran why it was not taken from the cache"),
            ("", "shell-on-failure", "bool", "Open a shell where a RUN failed"),
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
