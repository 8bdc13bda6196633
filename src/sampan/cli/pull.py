"""``pull``: ask the daemon for an image and show how its layers come."""

from __future__ import annotations

from sampan.cli.command import Command, Options
from sampan.cli.context import Context, out, read_settings
from sampan.cli.progress import Progress
from sampan.cli.references import check, split
from sampan.cli.references import platform as normal_platform
from sampan.client.api import json_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.api import Client


def pull(
    client: Client,
    image: str,
    *,
    platform: str,
    quiet: bool,
    fd: int,
    all_tags: bool = False,
) -> None:
    """Pull ``image`` with the user's credentials; progress goes to ``fd``. Raises Failure."""
    name, tag, digest = split(image)
    query = {"fromImage": name}
    if digest:
        query["tag"] = digest
    elif not all_tags:
        query["tag"] = tag or "latest"
    if platform:
        query["platform"] = normal_platform(platform)
    client.agree()
    headers = None
    settings = read_settings()
    if settings:
        from sampan.cli.credentials import header

        headers = header(settings, image)
    answer = client.open("POST", "/images/create", query, headers=headers)
    progress = Progress(fd, quiet=quiet)
    for message in json_stream(answer):
        progress.show(message)
    client.release(answer)


def _pull(context: Context, options: Options, arguments: list[str]) -> int:
    image = arguments[0]
    check(image)
    name, tag, digest = split(image)
    if options["all-tags"] and (tag or digest):
        from sampan.errors import Failure

        raise Failure("tag can't be used with --all-tags/-a")
    if not tag and not digest and not options["all-tags"]:
        tag = "latest"
        if not options["quiet"]:
            out("Using default tag: latest")
    pull(
        context.client,
        image,
        platform=options["platform"],
        quiet=options["quiet"],
        fd=1,
        all_tags=options["all-tags"],
    )
    from sampan.cli.push import whole

    shown = whole(name)
    out(shown + (f":{tag}" if tag else "") + (f"@{digest}" if digest else ""))
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "pull",
        "[OPTIONS] NAME[:TAG|@DIGEST]",
        "Download an image from a registry",
        _pull,
        flags=(
            ("a", "all-tags", "bool", "Download every tag of the repository"),
            ("", "disable-content-trust", "bool", "Skip verification of the image's signature", "true"),
            ("", "platform", "string", "Platform of the image, where it offers several"),
            ("q", "quiet", "bool", "Print only what was pulled"),
        ),
        least=1,
        most=1,
        aliases=("image pull", "pull"),
    ),
)
