"""``push``: ask the daemon to upload an image and show how its layers go."""

from __future__ import annotations

from sampan.cli.command import Command, Options
from sampan.cli.context import Context, out
from sampan.cli.references import check, platform_document, split
from sampan.client.api import json_stream, segment
from sampan.errors import Failure


def familiar(name: str) -> str:
    """A repository's name as people write it: without Docker Hub's own."""
    for domain in ("docker.io/", "index.docker.io/"):
        if name.startswith(domain):
            name = name.removeprefix(domain)
            return name.removeprefix("library/")
    return name.removeprefix("library/") if name.count("/") == 1 else name


def _push(context: Context, options: Options, arguments: list[str]) -> int:
    image = arguments[0]
    check(image)
    name, tag, digest = split(image)
    wanted = options["platform"]
    if wanted:
        wanted = platform_document(wanted, f"Invalid platform {wanted}")
    if options["all-tags"]:
        if tag or digest:
            raise Failure("tag can't be used with --all-tags/-a")
    elif digest:
        raise Failure("cannot push a digest reference")
    elif not tag:
        tag = "latest"
        if not options["quiet"]:
            out("Using default tag: latest")
    query = {"tag": tag} if tag else {}
    if wanted:
        query["platform"] = wanted
    _upload(context, image, query, quiet=options["quiet"])
    if options["quiet"]:
        out(whole(name) + (f":{tag}" if tag else ""))
    return 0


def send(context: Context, image: str, *, quiet: bool) -> None:
    """Push the image of that name; ``latest`` where it has no tag."""
    check(image)
    _, tag, _ = split(image)
    _upload(context, image, {"tag": tag or "latest"}, quiet=quiet)


def _upload(context: Context, image: str, query: dict[str, str], *, quiet: bool) -> None:
    from sampan.cli.credentials import header
    from sampan.cli.progress import Progress

    client = context.client
    client.agree()
    path = f"/images/{segment(familiar(split(image)[0]))}/push"
    answer = client.open("POST", path, query, headers=header(context.settings, image))
    progress = Progress(1, quiet=quiet)
    for message in json_stream(answer):
        progress.show(message)
    client.release(answer)


def whole(name: str) -> str:
    """A repository's name with its registry and all: ``docker.io/library/busybox``."""
    from sampan.cli.credentials import HUB, server_of

    if server_of(name) != HUB:
        return name
    short = familiar(name)
    return f"docker.io/{short if '/' in short else 'library/' + short}"


COMMANDS: tuple[Command, ...] = (
    Command(
        "push",
        "[OPTIONS] NAME[:TAG]",
        "Upload an image to a registry",
        _push,
        flags=(
            ("a", "all-tags", "bool", "Upload every tag of the repository"),
            ("", "disable-content-trust", "bool", "Skip signing of the image", "true"),
            ("", "platform", "string", "Upload only this platform of the image (os[/arch[/variant]])"),
            ("q", "quiet", "bool", "Print only what was pushed"),
        ),
        least=1,
        most=1,
        aliases=("image push", "push"),
    ),
)
