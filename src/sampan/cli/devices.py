"""Values of --device, --device-cgroup-rule and --gpus."""

from __future__ import annotations

from sampan.cli.fields import split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MODES = frozenset("rwm")
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def device(text: str) -> str:
    """A device as given; ``mapped`` takes it apart once all flags are read."""
    return text


def is_cdi(text: str) -> bool:
    """Whether ``text`` is a qualified name of the Container Device Interface, ``vendor/class=name``."""
    kind, sign, name = text.partition("=")
    vendor, slash, class_ = kind.partition("/")
    return bool(sign and slash and vendor and class_ and name) and all(
        word[0].isalnum() and word[-1].isalnum() and _NAME.issuperset(word) for word in (vendor, class_)
    )


def mapped(text: str) -> dict[str, Any]:
    """``host[:container][:permissions]`` as the API's DeviceMapping. Raises ValueError."""
    parts = text.split(":")
    if len(parts) > 3 or not text:
        raise ValueError(f"bad format for path: {text}")
    source = target = parts[0]
    permissions = "rwm"
    if len(parts) == 2 and _is_mode(parts[1]):
        permissions = parts[1]
    elif len(parts) >= 2:
        target = parts[1]
    if len(parts) == 3:
        permissions = parts[2]
        if not _is_mode(permissions):
            raise ValueError(f"bad mode specified: {permissions}")
    for path in (target, source):
        if not path.startswith("/"):
            raise ValueError(f"{path} is not an absolute path")
    return {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": permissions}


def _is_mode(text: str) -> bool:
    return bool(text) and _MODES.issuperset(text) and len(set(text)) == len(text)


def cgroup_rule(text: str) -> str:
    """``type major:minor permissions``."""
    words = text.split(" ")
    if len(words) == 3 and words[0] in ("a", "b", "c") and 0 < len(words[2]) <= 3 and _is_mode(words[2]):
        numbers = words[1].split(":")
        if len(numbers) == 2 and all(number == "*" or number.isdigit() for number in numbers):
            return text
    raise ValueError(f"invalid device cgroup format '{text}'")


def gpus(text: str) -> dict[str, Any]:
    """``all``, a number, or fields device, driver, count, capabilities, options, as a DeviceRequest."""
    request: dict[str, Any] = {
        "Driver": "",
        "Count": 0,
        "DeviceIDs": None,
        "Capabilities": [],
        "Options": {},
    }
    given: set[str] = set()
    for field in split(text):
        key, sign, value = field.partition("=")
        if key in given:
            raise ValueError(f"gpu request key '{key}' can be specified only once")
        given.add(key)
        if not sign:
            given.add("count")
            request["Count"] = _count(key)
        else:
            _gpu_field(request, key, value, field)
    if "count" not in given and request["DeviceIDs"] is None:
        request["Count"] = 1
    capabilities = request["Capabilities"]
    request["Capabilities"] = [capabilities if "gpu" in capabilities else [*capabilities, "gpu"]]
    return request


def _gpu_field(request: dict[str, Any], key: str, value: str, field: str) -> None:
    if key == "driver":
        request["Driver"] = value
    elif key == "count":
        request["Count"] = _count(value)
    elif key == "device":
        request["DeviceIDs"] = value.split(",")
    elif key == "capabilities":
        request["Capabilities"] = value.split(",")
    elif key == "options":
        options = (option.partition("=") for option in split(value))
        request["Options"] = {name: text for name, _, text in options}
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _count(text: str) -> int:
    if text == "all":
        return -1
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f'invalid count ({text}): value must be either "all" or an integer: invalid syntax'
        ) from None
