"""What ``-v``, ``--mount``, ``--tmpfs`` and the image's volumes ask for, read in Docker's grammar.

Pure but for one question to the host: whether a bind's source exists (``--mount`` requires it; ``-v`` has it
created). The result is a list of ``MountPoint``; volumes get their names from the volume store afterwards.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable

from msgspec.structs import replace

from sampan import errors
from sampan.engine.model import HostConfig, Mount, MountPoint

LOCAL_DRIVER = "local"
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_PROPAGATION = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
_LABELS = frozenset(("z", "Z"))
_CONSISTENCY = frozenset(("consistent", "cached", "delegated", "default"))
# What of /proc a container may be shown otherwise (lxcfs does).
_REPLACEABLE_WORDS = "cpuinfo diskstats meminfo stat swaps uptime loadavg slabinfo"
_REPLACEABLE = frozenset(f"/proc/{word}" for word in _REPLACEABLE_WORDS.split()) | {
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
}
_TMPFS_FLAG_WORDS = (
    "async atime defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime "
    "noexec noiversion nolazytime nomand norelatime nostrictatime nosuid rbind relatime remount ro rw silent "
    "strictatime suid sync bind"
)
_TMPFS_FLAGS = frozenset(_TMPFS_FLAG_WORDS.split())
_TMPFS_VALUES = frozenset(("mode", "uid", "gid", "size", "nr_inodes", "nr_blocks", "mpol"))
_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")


def settle(
    host: HostConfig,
    image_volumes: Iterable[str],
    own_volumes: Iterable[str],
    *,
    inherited: Iterable[MountPoint] = (),
    daemon_root: str = "",
) -> list[MountPoint]:
    """Every mount of a container, one for each destination; InvalidArgument in Docker's words.

    ``own_volumes`` are the destinations of ``-v /path`` (config.Volumes), ``image_volumes`` the image's: each
    becomes an anonymous volume unless something else is mounted there. ``inherited`` are those of
    ``--volumes-from``, which anything given here replaces.
    """
    points: dict[str, MountPoint] = {}
    driver = host.volume_driver or LOCAL_DRIVER
    for text in host.binds or ():
        _add(points, _near_root(parse_bind(text, driver=driver), daemon_root))
    for mount in host.mounts or ():
        _add(points, _near_root(parse_mount(mount), daemon_root))
    for target, options in (host.tmpfs or {}).items():
        absolute = f"invalid mount path: '{target}' mount path must be absolute"
        points_at = _destination(target, relative=absolute, root="")
        check_tmpfs_options(options)
        _add(
            points,
            MountPoint(
                type="tmpfs",
                destination=points_at,
                origin="tmpfs",
                options=options,
                rw="ro" not in options.split(","),
            ),
        )
    points = {**{point.destination: point for point in inherited}, **points}
    for path in (*own_volumes, *image_volumes):
        invalid = f"invalid volume specification: '{path}'"
        target = _destination(path, relative=invalid, root=f"{invalid}: ")
        if target not in points:
            points[target] = MountPoint(
                type="volume", destination=target, driver=driver, anonymous=True, origin="image"
            )
    return [
        point if point.propagation else replace(point, propagation=_default_propagation(point))
        for point in points.values()
    ]


def _default_propagation(point: MountPoint) -> str:
    return "rprivate" if point.type == "bind" else ""


def parse_volumes_from(text: str) -> tuple[str, str]:
    """One ``--volumes-from``: container[:mode], with the mode settled ("rw" by default)."""
    if not text:
        raise errors.InvalidArgument("volumes-from specification cannot be an empty string")
    ref, _, mode = text.partition(":")
    mode = mode or "rw"
    options = _mode(mode)
    if options & (_PROPAGATION | {"nocopy", "copy"}):
        raise errors.InvalidArgument(f"invalid mode: {mode}")
    return ref, mode


def inherit(points: Iterable[MountPoint], mode: str) -> list[MountPoint]:
    """The mounts of another container as ``--volumes-from`` gives them to this one."""
    writable = "ro" not in mode.split(",")
    return [
        replace(point, rw=point.rw and writable, no_copy=True, anonymous=False, origin="from")
        for point in points
        if point.origin != "tmpfs"
    ]


def _near_root(point: MountPoint, daemon_root: str) -> MountPoint:
    """A bind that has the engine's own directory in it, or lies in it, must not hold on to mounts there."""
    if point.type != "bind" or not daemon_root:
        return point
    if not point.source.startswith(daemon_root) and not daemon_root.startswith(point.source):
        return point
    if not point.propagation:
        return replace(point, propagation="rslave")
    if point.propagation in ("rslave", "rshared"):
        return point
    raise errors.InvalidArgument(
        'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is '
        f'within the daemon root, daemon root: "{daemon_root}", bind mount source: "{point.source}", '
        f'propagation: "{point.propagation}"'
    )


def _add(points: dict[str, MountPoint], point: MountPoint) -> None:
    _check_proc(point)
    if point.destination in points:
        raise errors.InvalidArgument(f"Duplicate mount point: {point.destination}")
    points[point.destination] = point


def _check_proc(point: MountPoint) -> None:
    """Refuse what would hide the container's own /proc, in the runtime's words."""
    path = point.destination
    if path == "/proc" and point.source != "/proc":
        reason = "is not of type proc"
    elif path.startswith("/proc/") and path not in _REPLACEABLE:
        reason = "is inside /proc"
    else:
        return
    raise errors.InvalidArgument(
        f'error mounting "{point.source or point.type}" to rootfs at "{path}": '
        f'"{path}" cannot be mounted because it {reason}'
    )


def parse_bind(text: str, *, driver: str = LOCAL_DRIVER) -> MountPoint:
    """One ``-v``: [source:]destination[:options]; ``driver`` is a volume's."""
    invalid = f"invalid volume specification: '{text}'"
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise errors.InvalidArgument(invalid)
    if len(parts) == 1:
        destination = _destination(text, relative=invalid, root=f"{invalid}: ")
        return MountPoint(type="volume", destination=destination, driver=driver, anonymous=True)
    source, target = parts[0], parts[1]
    mode = parts[2] if len(parts) == 3 else ""
    kind = "bind" if source.startswith("/") else "volume"
    config = f'{invalid}: invalid mount config for type "{kind}": '
    absolute = f"{config}invalid mount path: '{target}' mount path must be absolute"
    destination = _destination(target, relative=absolute, root=config)
    options = _mode(mode)
    propagation = next(iter(options & _PROPAGATION), "")
    if source.startswith("/"):
        if "nocopy" in options:
            raise errors.InvalidArgument(f"invalid mode: {mode}")
        return MountPoint(
            type="bind",
            source=posixpath.normpath(source),
            destination=destination,
            mode=mode,
            rw="ro" not in options,
            propagation=propagation,
            create_source=True,
        )
    if propagation:
        raise errors.InvalidArgument(f"invalid mode: {mode}")
    _check_volume_name(source)
    return MountPoint(
        type="volume",
        name=source,
        driver=driver,
        destination=destination,
        mode=mode or "z",
        rw="ro" not in options,
        no_copy="nocopy" in options,
    )


def _mode(mode: str) -> set[str]:
    options = mode.split(",") if mode else []
    known = _PROPAGATION | _LABELS | _CONSISTENCY | {"ro", "rw", "nocopy", "copy"}
    groups = (
        {"ro", "rw"},
        _LABELS,
        _PROPAGATION,
        {"nocopy", "copy"},
        _CONSISTENCY,
    )
    for group in groups:
        if sum(option in group for option in options) > 1:
            raise errors.InvalidArgument(f"invalid mode: {mode}")
    if set(options) - known:
        raise errors.InvalidArgument(f"invalid mode: {mode}")
    return set(options)


def parse_mount(mount: Mount) -> MountPoint:
    """One ``--mount``."""
    reader = _MOUNT_TYPES.get(mount.type)
    if reader is None:
        if mount.type == "cluster":
            raise errors.NotImplemented("--mount type=cluster needs a swarm; use type=volume")
        raise _invalid(mount, "mount type unknown")
    if not mount.target:
        raise _invalid(mount, "field Target must not be empty")
    if not mount.target.startswith("/"):
        raise _invalid(mount, f"invalid mount path: '{mount.target}' mount path must be absolute")
    if posixpath.normpath(mount.target) == "/":
        raise _invalid(mount, "invalid specification: destination can't be '/'")
    return reader(mount)


def _invalid(mount: Mount, reason: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f'invalid mount config for type "{mount.type}": {reason}')


def _bind_mount(mount: Mount) -> MountPoint:
    if not mount.source:
        raise _invalid(mount, "field Source must not be empty")
    for present, field in (
        (mount.volume_options, "VolumeOptions"),
        (mount.tmpfs_options, "TmpfsOptions"),
        (mount.image_options, "ImageOptions"),
    ):
        if present is not None:
            raise _invalid(mount, f"field {field} must not be specified")
    if not mount.source.startswith("/"):
        raise _invalid(mount, f"invalid mount path: '{mount.source}' mount path must be absolute")
    options = mount.bind_options
    propagation = options.propagation if options else ""
    if propagation and propagation not in _PROPAGATION:
        raise _invalid(mount, f"invalid propagation mode: {propagation}")
    create = bool(options and options.create_mountpoint)
    if not create and not os.path.lexists(mount.source):
        raise _invalid(mount, f"bind source path does not exist: {mount.source}")
    return MountPoint(
        type="bind",
        source=posixpath.normpath(mount.source),
        destination=posixpath.normpath(mount.target),
        rw=not mount.read_only,
        propagation=propagation,
        origin="mount",
        create_source=create,
        non_recursive=bool(options and options.non_recursive),
        read_only_non_recursive=bool(options and options.read_only_non_recursive),
    )


def _volume_mount(mount: Mount) -> MountPoint:
    for present, field in (
        (mount.bind_options, "BindOptions"),
        (mount.tmpfs_options, "TmpfsOptions"),
        (mount.image_options, "ImageOptions"),
    ):
        if present is not None:
            raise _invalid(mount, f"field {field} must not be specified")
    options = mount.volume_options
    driver = options.driver_config.name if options and options.driver_config else ""
    subpath = _subpath(mount, options.subpath if options else "")
    if subpath and not mount.source:
        raise _invalid(mount, "must not set Subpath when using anonymous volumes")
    if mount.source:
        _check_volume_name(mount.source)
    return MountPoint(
        type="volume",
        name=mount.source,
        driver=driver or LOCAL_DRIVER,
        subpath=subpath,
        destination=posixpath.normpath(mount.target),
        mode="z",
        rw=not mount.read_only,
        no_copy=bool(options and options.no_copy) or bool(subpath),
        origin="mount",
        anonymous=not mount.source,
    )


def _image_mount(mount: Mount) -> MountPoint:
    if not mount.source:
        raise _invalid(mount, "field Source must not be empty")
    for present, field in (
        (mount.bind_options, "BindOptions"),
        (mount.volume_options, "VolumeOptions"),
        (mount.tmpfs_options, "TmpfsOptions"),
    ):
        if present is not None:
            raise _invalid(mount, f"field {field} must not be specified")
    return MountPoint(
        type="image",
        name=mount.source,
        destination=posixpath.normpath(mount.target),
        subpath=_subpath(mount, mount.image_options.subpath if mount.image_options else ""),
        rw=False,
        origin="mount",
    )


def _subpath(mount: Mount, path: str) -> str:
    """The path below a volume or an image, as it was given. It is resolved by the kernel, at the start."""
    if path and (path.startswith("/") or posixpath.normpath(path).split("/")[0] == ".." or "\0" in path):
        raise _invalid(mount, "subpath must be a relative path within the volume")
    return path


def _tmpfs_mount(mount: Mount) -> MountPoint:
    if mount.source:
        raise _invalid(mount, "field Source must not be specified")
    if mount.bind_options is not None:
        raise _invalid(mount, "field BindOptions must not be specified")
    if mount.volume_options is not None:
        raise _invalid(mount, "field VolumeOptions must not be specified")
    options = mount.tmpfs_options
    words = []
    if mount.read_only:
        words.append("ro")
    if options is not None and options.mode:
        words.append(f"mode={options.mode:o}")
    if options is not None and options.size_bytes:
        words.append(f"size={options.size_bytes}")
    for pair in (options.options or ()) if options is not None else ():
        words.append("=".join(pair))
    text = ",".join(words)
    check_tmpfs_options(text)
    return MountPoint(
        type="tmpfs",
        destination=posixpath.normpath(mount.target),
        rw=not mount.read_only,
        origin="mount",
        options=text,
    )


_MOUNT_TYPES = {"bind": _bind_mount, "volume": _volume_mount, "tmpfs": _tmpfs_mount, "image": _image_mount}


def check_tmpfs_options(text: str) -> None:
    """Raise InvalidArgument for an option that tmpfs does not have."""
    for option in text.split(",") if text else ():
        key, equals, _ = option.partition("=")
        if option not in _TMPFS_FLAGS and not (equals and key in _TMPFS_VALUES):
            shown = " ".join(f'"{part}"' for part in option.split("=", 1))
            raise errors.InvalidArgument(f"invalid tmpfs option [{shown}]")


def tmpfs_options(text: str) -> list[str]:
    """Docker's defaults, overridden by the user's options: "exec" takes "noexec" back."""
    given = text.split(",") if text else []
    kept = [word for word in _TMPFS_DEFAULTS if word not in given and word.removeprefix("no") not in given]
    return kept + [word for word in given if word != "defaults"]


def _destination(path: str, *, relative: str, root: str) -> str:
    """The path, clean. InvalidArgument: ``relative`` for one that is not absolute; ``root`` begins the
    message about "/"."""
    if not path.startswith("/"):
        raise errors.InvalidArgument(relative)
    normal = posixpath.normpath(path)
    normal = normal[1:] if normal.startswith("//") else normal
    if normal == "/":
        raise errors.InvalidArgument(f"{root}invalid specification: destination can't be '/'")
    return normal


def _check_volume_name(name: str) -> None:
    if len(name) == 1:
        raise errors.InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _VOLUME_NAME.fullmatch(name):
        raise errors.InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
            "If you intended to pass a host directory, use absolute path"
        )
