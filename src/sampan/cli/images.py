"""``images``, ``history``, ``tag`` and ``rmi``."""

from __future__ import annotations

from sampan.cli.command import FORMAT_HELP, Command, Options
from sampan.cli.context import Context, err, out
from sampan.cli.listing import Fields, ellipsis, filtered, filters, identities, render
from sampan.cli.references import platform_document
from sampan.client.api import ApiError, segment
from sampan.client.http import quote
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

NONE = "<none>"
_UNKNOWN = "N/A"


class Image(Fields):
    """A row of ``images``: one tag (or digest) of an image."""

    kind = "*formatter.imageContext"
    columns: ClassVar[dict[str, str]] = {
        "Containers": "CONTAINERS",
        "CreatedAt": "CREATED AT",
        "CreatedSince": "CREATED",
        "Digest": "DIGEST",
        "ID": "IMAGE ID",
        "Repository": "REPOSITORY",
        "SharedSize": "SHARED SIZE",
        "Size": "SIZE",
        "Tag": "TAG",
        "UniqueSize": "UNIQUE SIZE",
        "VirtualSize": "VIRTUAL SIZE",
    }
    __slots__ = ("_all", "_digest", "_repository", "_summary", "_tag")

    def __init__(
        self, summary: dict[str, Any], repository: str, tag: str, digest: str, *, truncate: bool
    ) -> None:
        self._summary = summary
        self._repository, self._tag, self._digest = repository, tag, digest
        self._all = not truncate

    def ID(self) -> str:
        identity: str = self._summary["Id"]
        return identity if self._all else identity.removeprefix("sha256:")[:12]

    def Repository(self) -> str:
        return self._repository

    def Tag(self) -> str:
        return self._tag

    def Digest(self) -> str:
        return self._digest

    def CreatedAt(self) -> str:
        from sampan.cli.human import local_date

        return local_date(self._summary["Created"])

    def CreatedSince(self) -> str:
        from sampan.cli.human import ago

        created = self._summary["Created"]
        return ago(created) if created > 0 else _UNKNOWN

    def Size(self) -> str:
        return _size(self._summary["Size"], 3)

    def VirtualSize(self) -> str:
        return _size(self._summary["Size"], 4)

    def SharedSize(self) -> str:
        shared = self._summary.get("SharedSize", -1)
        return _UNKNOWN if shared == -1 else _size(shared, 4)

    def UniqueSize(self) -> str:
        shared = self._summary.get("SharedSize", -1)
        return _UNKNOWN if shared == -1 else _size(self._summary["Size"] - shared, 4)

    def Containers(self) -> str:
        count = self._summary.get("Containers", -1)
        return _UNKNOWN if count == -1 else str(count)


def _size(number: int, digits: int) -> str:
    from sampan.cli.human import size

    return size(number, digits)


def _named(references: list[str], mark: str) -> dict[str, list[str]]:
    """References by repository, in order; those without a name are left out."""
    found: dict[str, list[str]] = {}
    for reference in references:
        repository, _, rest = reference.rpartition(mark)
        if repository and repository != NONE:
            found.setdefault(repository, []).append(rest)
    return found


def rows_of(summaries: list[dict[str, Any]], *, truncate: bool, digests: bool) -> list[Image]:
    """A row for each tag; with ``digests`` for each pair of tag and digest."""
    rows: list[Image] = []
    for summary in summaries:
        tags = _named(summary.get("RepoTags") or [], ":")
        hashes = _named(summary.get("RepoDigests") or [], "@")
        if not tags and not hashes:
            rows.append(Image(summary, NONE, NONE, NONE, truncate=truncate))
        for repository, names in tags.items():
            sums = hashes.pop(repository, [])
            for tag in names:
                for digest in sums if digests and sums else sums[:1] or [NONE]:
                    rows.append(Image(summary, repository, tag, digest, truncate=truncate))
        for repository, sums in hashes.items():
            for digest in sums if digests else sums[:1]:
                rows.append(Image(summary, repository, NONE, digest, truncate=truncate))
    return rows


def _tree(context: Context, options: Options, query: dict[str, str]) -> int:
    from sampan.cli.imagetree import show

    for flag, word in _NOT_IN_TREES:
        if options[flag]:
            raise Failure(f"--{word} is not yet supported with --tree")
    summaries = context.client.call("GET", "/images/json", {**query, "manifests": "1"}) or []
    show(summaries, show_all=options["all"])
    return 0


_NOT_IN_TREES = (
    ("quiet", "quiet"),
    ("no-trunc", "no-trunc"),
    ("digests", "show-digest"),
    ("format", "format"),
)


def _images(context: Context, options: Options, arguments: list[str]) -> int:
    query: dict[str, str] = {}
    if options["all"]:
        query["all"] = "1"
    chosen = filters(options)
    if arguments:
        chosen.setdefault("reference", []).append(arguments[0])
    query |= filtered(chosen)
    if options["tree"]:
        return _tree(context, options, query)
    summaries = context.client.call("GET", "/images/json", query) or []
    rows = rows_of(summaries, truncate=not options["no-trunc"], digests=options["digests"])
    template = options["format"]
    if options["quiet"]:
        return identities((row.ID() for row in rows), template)
    if template in ("", "table"):
        digest = "{{.Digest}}\t" if options["digests"] else ""
        template = "table {{.Repository}}\t{{.Tag}}\t" + digest + "{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    render(rows, Image, template)
    return 0


class Step(Fields):
    """A row of ``history``."""

    kind = "*image.historyContext"
    columns: ClassVar[dict[str, str]] = {
        "Comment": "COMMENT",
        "CreatedAt": "CREATED AT",
        "CreatedBy": "CREATED BY",
        "CreatedSince": "CREATED",
        "ID": "IMAGE",
        "Size": "SIZE",
    }
    __slots__ = ("_all", "_human", "_step")

    def __init__(self, step: dict[str, Any], *, human: bool, truncate: bool) -> None:
        self._step = step
        self._human = human
        self._all = not truncate

    def ID(self) -> str:
        identity: str = self._step["Id"]
        return identity if self._all or identity == "<missing>" else identity.removeprefix("sha256:")[:12]

    def CreatedAt(self) -> str:
        import time

        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self._step["Created"])) + "Z"

    def CreatedSince(self) -> str:
        from sampan.cli.human import ago

        if not self._human:
            return self.CreatedAt()
        created = self._step["Created"]
        return ago(created) if created > 0 else _UNKNOWN

    def CreatedBy(self) -> str:
        text = (self._step.get("CreatedBy") or "").replace("\t", " ")
        return text if self._all else ellipsis(text, 45)

    def Size(self) -> str:
        return _size(self._step["Size"], 3) if self._human else str(self._step["Size"])

    def Comment(self) -> str:
        return self._step.get("Comment") or ""


def _history(context: Context, options: Options, arguments: list[str]) -> int:
    query = {}
    if options["platform"]:
        query["platform"] = platform_document(options["platform"], "invalid platform: ")
    steps = context.client.call("GET", f"/images/{segment(arguments[0])}/history", query) or []
    human = options["human"]
    rows = [Step(step, human=human, truncate=not options["no-trunc"]) for step in steps]
    template = options["format"]
    if options["quiet"]:
        for row in rows:
            out(row.ID())
        return 0
    if template in ("", "table"):
        when = "CreatedSince" if human else "CreatedAt"
        template = f"table {{{{.ID}}}}\t{{{{.{when}}}}}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{{{{.Comment}}}}"
    render(rows, Step, template)
    return 0


def _tag(context: Context, _options: Options, arguments: list[str]) -> int:
    from sampan.cli.references import check, split

    source, target = arguments
    name, tag, _ = split(target)
    try:
        check(target)
    except Failure as error:
        raise Failure(
            f'Error parsing reference: "{target}" is not a valid repository/tag: {error}'
        ) from error
    query = {"repo": name, "tag": tag or "latest"}
    context.client.raw("POST", f"/images/{segment(source)}/tag", query)
    return 0


def _rmi(context: Context, options: Options, arguments: list[str]) -> int:
    query = {}
    if options["force"]:
        query["force"] = "1"
    if options["no-prune"]:
        query["noprune"] = "1"
    # the query repeats the key, which a mapping cannot
    wanted = [platform_document(text) for texts in options["platform"] for text in texts]
    further = "".join(f"&platforms={quote(one)}" for one in wanted).replace("&", "?", 1)
    code = 0
    for name in arguments:
        try:
            removed = context.client.call("DELETE", f"/images/{segment(name)}{further}", query)
        except Failure as error:
            err(str(error))
            absent = isinstance(error, ApiError) and error.status == 404
            code = code if options["force"] and absent else 1
            continue
        for item in removed or ():
            out(f"Deleted: {item['Deleted']}" if "Deleted" in item else f"Untagged: {item['Untagged']}")
    return code


COMMANDS: tuple[Command, ...] = (
    Command(
        "images",
        "[OPTIONS] [REPOSITORY[:TAG]]",
        "List images",
        _images,
        flags=(
            ("a", "all", "bool", "Show intermediate images too"),
            ("", "digests", "bool", "Show digests"),
            ("f", "filter", "filter", "Show only what meets the conditions"),
            ("", "format", "string", FORMAT_HELP),
            ("", "no-trunc", "bool", "Do not shorten the output"),
            ("q", "quiet", "bool", "Show only IDs"),
            ("", "tree", "bool", "Show the platforms of each image"),
        ),
        most=1,
        aliases=("image ls", "image list", "images"),
    ),
    Command(
        "history",
        "[OPTIONS] IMAGE",
        "Show the history of an image",
        _history,
        flags=(
            ("", "format", "string", FORMAT_HELP),
            ("H", "human", "bool", "Print sizes and dates as people read them", "true"),
            ("", "no-trunc", "bool", "Do not shorten the output"),
            ("", "platform", "string", "Platform of the image, where it offers several"),
            ("q", "quiet", "bool", "Show only IDs"),
        ),
        least=1,
        most=1,
        aliases=("image history", "history"),
    ),
    Command(
        "tag",
        "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
        "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
        _tag,
        least=2,
        most=2,
        aliases=("image tag", "tag"),
    ),
    Command(
        "rmi",
        "[OPTIONS] IMAGE [IMAGE...]",
        "Remove one or more images",
        _rmi,
        flags=(
            ("f", "force", "bool", "Remove the image even if something uses it"),
            ("", "no-prune", "bool", "Keep parents without a tag"),
            ("", "platform", "strings", "Remove only this platform of the image"),
        ),
        least=1,
        aliases=("image rm", "image remove", "rmi"),
    ),
)
