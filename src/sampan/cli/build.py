"""``build`` and ``builder``: the commands and their flags. The engine does not build yet, which they say."""

from __future__ import annotations

from sampan.cli.command import Command, Options
from sampan.cli.context import PROGRAM, Context, out
from sampan.errors import Failure

NOT_YET = "this engine does not build images yet; build elsewhere and bring the image in by load or import"


def _build(_context: Context, _options: Options, _arguments: list[str]) -> int:
    raise Failure(f"{PROGRAM} build: {NOT_YET}")


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
            ("", "security-opt", "strings", "Security options"),
            ("", "shm-size", "bytes", "Size of /dev/shm"),
            ("", "squash", "bool", "Make one layer of all new ones"),
            ("t", "tag", "list", "Name of the image, and a tag if wanted (name:tag)"),
            ("", "target", "string", "Stage to build"),
            ("", "ulimit", "ulimit", "Resource limits"),
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
