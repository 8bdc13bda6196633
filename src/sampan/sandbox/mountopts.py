"""Mount options of an OCI mount (``options`` in config.md), split into what the kernel takes separately."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sampan.linux import mount as m

_SET = {
    "ro": m.MOUNT_ATTR_RDONLY,
    "nosuid": m.MOUNT_ATTR_NOSUID,
    "nodev": m.MOUNT_ATTR_NODEV,
    "noexec": m.MOUNT_ATTR_NOEXEC,
    "nodiratime": m.MOUNT_ATTR_NODIRATIME,
}
_CLEAR = {
    "rw": m.MOUNT_ATTR_RDONLY,
    "suid": m.MOUNT_ATTR_NOSUID,
    "dev": m.MOUNT_ATTR_NODEV,
    "exec": m.MOUNT_ATTR_NOEXEC,
    "diratime": m.MOUNT_ATTR_NODIRATIME,
}
_ATIME = {
    "noatime": m.MOUNT_ATTR_NOATIME,
    "strictatime": m.MOUNT_ATTR_STRICTATIME,
    "relatime": 0,
    "norelatime": m.MOUNT_ATTR_STRICTATIME,
    "atime": 0,
}
_PROPAGATION = {
    "private": m.MS_PRIVATE,
    "shared": m.MS_SHARED,
    "slave": m.MS_SLAVE,
    "unbindable": m.MS_UNBINDABLE,
}
# Words with no meaning for a new mount: "defaults", the bind marks (kept apart) and SELinux relabelling.
_IGNORED = frozenset({"defaults", "bind", "rbind", "z", "Z", "async", "nofail"})

# Every word that ``parse`` knows.
WORDS = (
    frozenset((*_SET, *_CLEAR, *_ATIME, *_PROPAGATION, *(f"r{word}" for word in _PROPAGATION), "rro"))
    | _IGNORED
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Attributes to set and clear (MOUNT_ATTR_*), propagation (MS_*), and the file system's own options.

    ``propagation_recursive`` says whether it is meant for every submount ("rprivate" against "private").
    """

    attr_set: int = 0
    attr_clr: int = 0
    propagation: int = 0
    propagation_recursive: bool = False
    recursive: bool = False
    recursive_readonly: bool = False
    data: tuple[tuple[str, str | None], ...] = ()

    @property
    def attributes(self) -> int:
        """The attributes of a new mount, where there is nothing to clear."""
        return self.attr_set


def parse(options: Iterable[str]) -> Options:
    attr_set = attr_clr = propagation = 0
    recursive = recursive_readonly = propagation_recursive = False
    data: list[tuple[str, str | None]] = []
    for option in options:
        bare = option[1:] if option.startswith("r") else option
        if option in _SET:
            attr_set |= _SET[option]
            attr_clr &= ~_SET[option]
        elif option in _CLEAR:
            attr_clr |= _CLEAR[option]
            attr_set &= ~_CLEAR[option]
        elif option in _ATIME:
            attr_clr |= m.MOUNT_ATTR__ATIME
            attr_set = attr_set & ~m.MOUNT_ATTR__ATIME | _ATIME[option]
        elif option in _PROPAGATION or bare in _PROPAGATION:
            propagation = _PROPAGATION[option if option in _PROPAGATION else bare]
            propagation_recursive = option not in _PROPAGATION
        elif option == "rro":
            attr_set |= m.MOUNT_ATTR_RDONLY
            recursive_readonly = True
        elif option in _IGNORED:
            recursive = recursive or option == "rbind"
        else:
            key, equals, value = option.partition("=")
            data.append((key, value if equals else None))
    return Options(
        attr_set=attr_set,
        attr_clr=attr_clr,
        propagation=propagation,
        propagation_recursive=propagation_recursive,
        recursive=recursive,
        recursive_readonly=recursive_readonly,
        data=tuple(data),
    )
