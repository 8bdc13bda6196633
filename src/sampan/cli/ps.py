"""``ps``: the list of containers."""

from __future__ import annotations

from sampan.cli.command import FORMAT_HELP, Command, Options
from sampan.cli.context import Context


def _ps(context: Context, options: Options, _arguments: list[str]) -> int:
    query: dict[str, str] = {}
    if options["all"]:
        query["all"] = "1"
    last = options["last"]
    if options["latest"] and last == -1:
        last = 1
    if last > 0:
        query["limit"] = str(last)
    if options["size"] or ("{{" in options["format"] and _wants_size(options["format"])):
        query["size"] = "1"
    if options["filter"]:
        from sampan.cli.listing import filtered, filters

        query |= filtered(filters(options))
    client = context.client
    client.meanwhile = _load_rows
    summaries = client.call("GET", "/containers/json", query) or []
    from sampan.cli.containerrows import show

    return show(summaries, options)


def _wants_size(template: str) -> bool:
    from sampan.cli.containerrows import wants_size

    return wants_size(template)


def _load_rows() -> None:
    """Load what shows the containers while the engine lists them."""
    import sampan.cli.containerrows  # noqa: F401 - for its presence


COMMANDS: tuple[Command, ...] = (
    Command(
        "ps",
        "[OPTIONS]",
        "List containers",
        _ps,
        flags=(
            ("a", "all", "bool", "Show stopped containers too"),
            ("f", "filter", "filter", "Show only what meets the conditions"),
            ("", "format", "string", FORMAT_HELP),
            ("n", "last", "int", "Show the last n containers created, in any state", "-1"),
            ("l", "latest", "bool", "Show the last container created, in any state"),
            ("", "no-trunc", "bool", "Do not shorten the output"),
            ("q", "quiet", "bool", "Show only IDs"),
            ("s", "size", "bool", "Show sizes on disk"),
        ),
        most=0,
        aliases=("container ls", "container list", "container ps", "ps"),
    ),
)
