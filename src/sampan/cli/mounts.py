"""Values of -v, --mount and --tmpfs.

``-v`` has colon-separated sections, where a source that looks like a path is a bind and any other is a
volume's name. ``--mount`` has comma-separated ``key=value`` fields, each key of one type of mount.
"""

from __future__ import annotations

import os

from sampan.cli.fields import pairs
from sampan.cli.values import FALSE, TRUE, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BARE = "\0"  # the value of a key without "="


def volume(text: str) -> tuple[str, str]:
    """``-v`` as ("bind", spec to send) or ("anonymous", path in the container)."""
    if not text:
        return "", ""  # refused by ``volumes``, after the flags, as Docker does
    return ("bind", text) if ":" in text and text != ":" else ("anonymous", text)


def volumes(given: list[tuple[str, str]]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The ``Binds`` and the ``Volumes`` of all ``-v`` flags. Raises ValueError."""
    binds: dict[str, None] = {}
    anonymous: dict[str, dict[str, Any]] = {}
    for kind, text in given:
        if not text:
            raise ValueError("invalid empty volume spec")
        if kind == "anonymous" or not _has_source(text):
            anonymous[text] = {}
            continue
        source, _, rest = text.partition(":")
        if source.startswith("."):
            source = os.path.abspath(source)
        binds[f"{source}:{rest}"] = None
    return list(binds), anonymous


def _has_source(text: str) -> bool:
    """Check the sections of ``text``; whether its first one is a source."""
    drive = text[1:2] == ":" and text[0].isalpha()  # one letter is a Windows drive, here as in Docker
    sections = text[2:].split(":") if drive else text.split(":")
    if any(not section for section in sections):
        raise ValueError(f"invalid spec: {text}: empty section between colons")
    if len(sections) > 3:
        raise ValueError(f"invalid spec: {text}: too many colons")
    return len(sections) > 1


class _Mount:
    """A mount while its fields are read: options are kept by the type of mount that they belong to."""

    __slots__ = ("consistency", "groups", "readonly", "source", "target", "type")

    def __init__(self) -> None:
        self.type = "volume"
        self.source = self.target = self.consistency = ""
        self.readonly = False
        self.groups: dict[str, dict[str, Any]] = {}

    def group(self, name: str) -> dict[str, Any]:
        return self.groups.setdefault(name, {})

    def driver(self) -> dict[str, Any]:
        config: dict[str, Any] = self.group("volume").setdefault("DriverConfig", {})
        return config


def _boolean(key: str, value: str) -> bool:
    if value == BARE or value in TRUE:
        return True
    if value in FALSE:
        return False
    raise ValueError(f"invalid value for {key}: {value}")


_FLAGS = frozenset(("readonly", "ro", "volume-nocopy", "bind-nonrecursive"))


def _plain(mount: _Mount, key: str, value: str) -> bool:
    if key == "type":
        mount.type = value.lower()
    elif key in ("source", "src"):
        mount.source = os.path.abspath(value) if value == "." or value.startswith("./") else value
    elif key in ("target", "dst", "destination"):
        mount.target = value
    elif key in ("readonly", "ro"):
        mount.readonly = _boolean(key, value)
    elif key == "consistency":
        mount.consistency = value.lower()
    else:
        return False
    return True


def _bind(mount: _Mount, key: str, value: str) -> bool:
    if key == "bind-propagation":
        mount.group("bind")["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        if _boolean(key, value):
            mount.group("bind")["NonRecursive"] = True
    elif key == "bind-recursive":
        _recursion(mount.group("bind"), value)
    else:
        return False
    return True


def _recursion(options: dict[str, Any], value: str) -> None:
    names = {
        "enabled": "",
        "disabled": "NonRecursive",
        "writable": "ReadOnlyNonRecursive",
        "readonly": "ReadOnlyForceRecursive",
    }
    if value not in names:
        raise ValueError(
            f"invalid value for bind-recursive: {value} "
            '(must be "enabled", "disabled", "writable", or "readonly")'
        )
    if names[value]:
        options[names[value]] = True


def _volume(mount: _Mount, key: str, value: str) -> bool:
    if key == "volume-nocopy":
        if _boolean(key, value):
            mount.group("volume")["NoCopy"] = True
    elif key == "volume-label":
        name, _, text = value.partition("=")
        mount.group("volume").setdefault("Labels", {})[name] = text
    elif key == "volume-subpath":
        mount.group("volume")["Subpath"] = value
    elif key == "volume-driver":
        mount.driver()["Name"] = value
    elif key == "volume-opt":
        name, _, text = value.partition("=")
        mount.driver().setdefault("Options", {})[name] = text
    else:
        return False
    return True


def _tmpfs(mount: _Mount, key: str, value: str) -> bool:
    if key == "tmpfs-size":
        try:
            mount.group("tmpfs")["SizeBytes"] = size(value)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
    elif key == "tmpfs-mode":
        try:
            mount.group("tmpfs")["Mode"] = int(value, 8)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
    elif key == "image-subpath":
        mount.group("image")["Subpath"] = value
    else:
        return False
    return True


def mount(text: str) -> dict[str, Any]:
    """``--mount`` as the API's Mount. Raises ValueError in Docker's words."""
    found = _Mount()
    for key, value, field in pairs(text):
        if value == BARE and key not in _FLAGS:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        if not any(read(found, key, value) for read in (_plain, _bind, _volume, _tmpfs)):
            raise ValueError(f"unexpected key '{field.partition('=')[0]}' in '{field}'")
    if not found.type:
        raise ValueError("type is required")
    if not found.target:
        raise ValueError("target is required")
    _consistent(found)
    return _document(found)


def _consistent(found: _Mount) -> None:
    for group in found.groups:
        if group != found.type:
            raise ValueError(f"cannot mix '{group}-*' options with mount type '{found.type}'")
    options = found.groups.get("bind", {})
    if options.get("ReadOnlyNonRecursive") and not found.readonly:
        raise ValueError(
            "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction"
        )
    if options.get("ReadOnlyForceRecursive"):
        what = "option 'bind-recursive=readonly' requires"
        if not found.readonly:
            raise ValueError(f"{what} 'readonly' to be specified in conjunction")
        if options.get("Propagation") != "rprivate":
            raise ValueError(f"{what} 'bind-propagation=rprivate' to be specified in conjunction")


def _document(found: _Mount) -> dict[str, Any]:
    document: dict[str, Any] = {"Type": found.type}
    if found.source:
        document["Source"] = found.source
    document["Target"] = found.target
    if found.readonly:
        document["ReadOnly"] = True
    if found.consistency:
        document["Consistency"] = found.consistency
    for group, options in found.groups.items():
        if options:
            document[f"{group.capitalize()}Options"] = options
    return document
