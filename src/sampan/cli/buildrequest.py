"""What a build sends at once: its request's path, and a context that comes from our input."""

from __future__ import annotations

import os

from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sampan.cli.buildcache import Caches
    from sampan.cli.command import Options
    from sampan.cli.context import Context

    Say = Callable[[str], None]

_PIECE = 1 << 18


def is_remote(path: str) -> bool:
    """Whether the engine fetches the context itself."""
    return path.startswith(("http://", "https://", "git://", "git@", "ssh://", "github.com/"))


def input_text() -> bytes:
    """All of our input."""
    return b"".join(_pieces_of(0))


def _pieces_of(fd: int) -> Iterator[bytes]:
    while data := os.read(fd, _PIECE):
        yield data


def from_input(file: str, said: Say) -> tuple[str, Iterator[bytes]]:
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
    data = single(start + input_text())
    tell_size(len(data), said)
    return "", iter((data,))


def _counted(start: bytes, said: Say) -> Iterator[bytes]:
    size = len(start)
    yield start
    for piece in _pieces_of(0):
        size += len(piece)
        yield piece
    tell_size(size, said)


def tell_size(size: int, said: Say) -> None:
    """Say how much was sent."""
    from sampan.cli.human import size as shown

    said(f"Sending build context to Docker daemon  {shown(size)}\r\r\n")


def compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same as gzip has it."""
    import zlib

    packer = zlib.compressobj(wbits=31)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def target(
    options: Options, dockerfile: str, path: str, names: list[str], caches: Caches | None = None
) -> str:
    """The request's path with its parameters, of which some are repeated."""
    from sampan.client.http import quote
    from sampan.wire import document

    pairs = [("t", name) for name in names]
    pairs += [("allow", right) for right in _each(options["allow"])]
    pairs += [("extrahosts", host) for host in options["add-host"]]
    documents = {
        "buildargs": _arguments(options["build-arg"]),
        "labels": {name: value for name, _, value in (text.partition("=") for text in options["label"])},
        "cachefrom": caches.images if caches is not None else [],
        "ulimits": options["ulimit"],
        "securityopt": _each(options["security-opt"]),
    }
    pairs += [(name, document.encode(value)) for name, value in documents.items() if value]
    plain = {
        "dockerfile": dockerfile,
        "remote": path if is_remote(path) else "",
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
        "cacheinline": int(caches is not None and caches.inline),
        "cachetold": int(caches is not None and caches.told),
        "provenance": _provenance(options),
        "check": int(options["check"]),
        "nocache": int(options["no-cache"]),
        "pull": int(options["pull"]),
        "rm": int(options["rm"]),
        "forcerm": int(options["force-rm"]),
        "squash": int(options["squash"]),
    }
    pairs += [(name, str(value)) for name, value in plain.items() if value]
    return "/build?" + "&".join(f"{name}={quote(value)}" for name, value in pairs)


def _provenance(options: Options) -> str:
    """min or max, or nothing where none is wanted."""
    mode = options["provenance"]
    for text in options["attest"]:
        fields = dict(part.partition("=")[::2] for part in text.split(","))
        if fields.get("type") != "provenance":
            raise Failure(f"--attest: {text}: only type=provenance is offered")
        mode = "false" if fields.get("disabled") == "true" else fields.get("mode", "min")
    mode = mode.removeprefix("mode=")
    if mode in ("", "false", "0"):
        return ""
    if not (options["metadata-file"] or options["push"]):
        raise Failure("--provenance: it goes to --metadata-file or with --push, of which none is given")
    return "min" if mode in ("true", "1") else mode


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


def credentials(context: Context) -> dict[str, str]:
    """The header that has the user's, if there are any."""
    settings = context.settings
    if not settings.get("auths") and not settings.get("credHelpers"):
        return {}
    from sampan.cli.credentials import all_headers

    return all_headers(settings)
