"""``create`` and ``run``.

The order is what makes ``run`` lose nothing: create, attach, wait, start. Attach before start sees the first
byte; wait before start sees the exit however soon it comes.
"""

from __future__ import annotations

import os

from sampan.cli.command import Command, Exit, Options
from sampan.cli.context import PROGRAM, Context, err, out
from sampan.cli.createbody import attached, build
from sampan.cli.runflags import RUN, SHARED
from sampan.client.api import ApiError, segment
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.client.api import Client

NOT_STARTED = 125  # what Docker exits with when the container was never started


def _explained(spelled: str, error: Failure, code: int = NOT_STARTED) -> Exit:
    return Exit(code, f"{PROGRAM}: {error}\n\nRun '{PROGRAM} {spelled} --help' for more information")


def create(context: Context, options: Options, arguments: list[str]) -> int:
    """Create a container and print its ID."""
    try:
        body = _prepare(context, options, arguments, attached(options))
    except Failure as error:
        raise _explained(context.spelled, error) from error
    out(_create(context, options, arguments[0], body))
    return 0


def _prepare(
    context: Context, options: Options, arguments: list[str], streams: tuple[bool, bool, bool]
) -> dict[str, Any]:
    """The request's body, from flags that are right in themselves. Raises Failure."""
    _check_system(options)
    _check_pull(options)
    if not options["disable-content-trust"]:
        raise Failure("content trust is not offered; images are verified by digest")
    socket = context.client.address.path
    return build(options, arguments[0], arguments[1:], streams, socket=socket)


def _check_system(options: Options) -> None:
    """Flags for daemons on Windows, which ours never is."""
    for flag in ("cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"):
        if flag in options.given:
            raise Exit(
                1,
                f'"--{flag}" is only supported on a Docker daemon running on windows, '
                "but the Docker daemon is running on linux",
            )


def _check_pull(options: Options) -> None:
    if options["pull"] not in ("always", "missing", "never"):
        raise Failure(
            f'invalid pull option: \'{options["pull"]}\': must be one of "always", "missing" or "never"'
        )


def _create(context: Context, options: Options, image: str, body: dict[str, Any]) -> str:
    """Create the container, pulling its image if need be; returns the id.

    The file for the id is made first, and goes again if nothing is written to it.
    """
    path = options["cidfile"]
    if not path:
        return _request(context, options, image, body)
    fd = _id_file(path)
    try:
        identity = _request(context, options, image, body)
        os.write(fd, identity.encode())
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(fd)
    return identity


def _request(context: Context, options: Options, image: str, body: dict[str, Any]) -> str:
    _check_reference(image)
    query: dict[str, str] = {}
    if options["name"]:
        query["name"] = options["name"]
    if options["platform"]:
        query["platform"] = _platform(options["platform"])
    client = context.client
    if options["pull"] == "always":
        _pull(client, image, options)
    try:
        made = client.call("POST", "/containers/create", query, body)
    except ApiError as error:
        if error.status != 404 or options["pull"] != "missing" or not _lacks_image(error.message):
            raise
        if not options["quiet"]:
            err(f"Unable to find image '{_familiar(image)}' locally")
        _pull(client, image, options)
        made = client.call("POST", "/containers/create", query, body)
    for warning in made.get("Warnings") or ():
        err(f"WARNING: {warning}")
    identity: str = made["Id"]
    return identity


def _lacks_image(message: str) -> bool:
    """Whether the engine has not got the image, or not for the platform."""
    return "no such image" in message.lower() or message.startswith("image with reference ")


def _check_reference(image: str) -> None:
    from sampan.cli.references import check

    check(image)


def _familiar(image: str) -> str:
    from sampan.cli.references import tagged

    return tagged(image)


def _platform(text: str) -> str:
    from sampan.cli.references import platform

    return platform(text)


def _pull(client: Client, image: str, options: Options) -> None:
    from sampan.cli.pull import pull

    pull(client, image, platform=options["platform"], quiet=options["quiet"], fd=2)


def _id_file(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise Failure(
            f"container ID file found, make sure the other container isn't running or delete {path}"
        ) from None
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise Failure(f"failed to create the container ID file: open {path}: {reason}") from error


def run(context: Context, options: Options, arguments: list[str]) -> int:
    """Create a container, start it, and be its terminal until it exits."""
    streams = attached(options)
    if options["detach"]:
        if options["attach"]:
            raise Exit(1, "conflicting options: cannot specify both --attach and --detach")
        streams = (False, False, False)
    if streams[0] and options["tty"] and not os.isatty(0):
        raise Exit(1, "the input device is not a TTY")
    try:
        body = _prepare(context, options, arguments, streams)
        if options["tty"]:
            body["HostConfig"]["ConsoleSize"] = _console()
        if any(streams):
            context.client.meanwhile = _load_attachment
        identity = _create(context, options, arguments[0], body)
    except Failure as error:
        raise _start_failed(context.spelled, error) from error
    try:
        return _start(context, options, identity, streams)
    finally:
        if not (streams[1] or streams[2]):
            out(identity)


def _load_attachment() -> None:
    """Load what is needed next while the engine creates the container."""
    import sampan.cli.attached  # noqa: F401 - for its presence


def _console() -> list[int]:
    from sampan.cli.terminal import size

    return list(size(1))


def _start(context: Context, options: Options, identity: str, streams: tuple[bool, bool, bool]) -> int:
    if not any(streams):
        try:
            context.client.raw("POST", f"/containers/{segment(identity)}/start")
        except Failure as error:
            raise _start_failed(context.spelled, error) from error
        return 0
    from sampan.cli.attached import Attachment

    attachment = Attachment(
        context,
        identity,
        streams,
        tty=options["tty"],
        keys=options["detach-keys"],
        proxy=options["sig-proxy"],
        condition="removed" if options["rm"] else "next-exit",
    )
    try:
        return attachment.run()
    except ApiError as error:
        raise _start_failed(context.spelled, error) from error


def _start_failed(spelled: str, error: Failure) -> Exit:
    """Docker tells the failed step by words in the message; the engine's message carries the same words."""
    text = str(error)
    missing = (
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
    )
    code = NOT_STARTED
    if any(words in text for words in missing):
        code = 127
    elif "permission denied" in text or "is a directory" in text:
        code = 126
    return _explained(spelled, error, code)


_USAGE = "[OPTIONS] IMAGE [COMMAND] [ARG...]"

COMMANDS: tuple[Command, ...] = (
    Command(
        "run",
        _USAGE,
        "Create and run a new container from an image",
        run,
        flags=RUN,
        least=1,
        aliases=("container run", "run"),
        interspersed=False,
    ),
    Command(
        "create",
        _USAGE,
        "Create a new container",
        create,
        flags=SHARED,
        least=1,
        aliases=("container create", "create"),
        interspersed=False,
    ),
)
