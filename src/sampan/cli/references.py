"""What a person may write for an image, checked before anything is asked of the daemon."""

from __future__ import annotations

from sampan.errors import Failure

_ALNUM = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_TAG_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_TAG = _TAG_FIRST | frozenset(".-")
_HEX = frozenset("0123456789abcdef")
_HUB = ("docker.io", "index.docker.io")


def split(image: str) -> tuple[str, str, str]:
    """Name, tag and digest of ``image``; the latter two may be empty."""
    name, _, digest = image.partition("@")
    head, colon, tag = name.rpartition(":")
    if colon and "/" not in tag:
        return head, tag, digest
    return name, "", digest


def _component(text: str) -> bool:
    """Lower-case words joined by ".", "_", "__" or dashes."""
    if not text or text[0] not in _ALNUM or text[-1] not in _ALNUM:
        return False
    at = 0
    while at < len(text):
        if text[at] in _ALNUM:
            at += 1
            continue
        end = at
        while end < len(text) and text[end] not in _ALNUM:
            end += 1
        joint = text[at:end]
        if joint not in (".", "_", "__") and joint.strip("-"):
            return False
        at = end
    return True


def _is_domain(text: str) -> bool:
    return "." in text or ":" in text or text == "localhost" or text.lower() != text


def _is_digest(text: str) -> bool:
    """``algorithm:hex``, of the length that is right for the algorithms in use."""
    algorithm, _, value = text.partition(":")
    return algorithm[:1].isalpha() and len(value) >= 32 and _HEX.issuperset(value.lower())


def check(image: str) -> None:
    """Raise Failure, in Docker's words, if ``image`` can be no reference."""
    name, tag, digest = split(image)
    if len(image) == 64 and _HEX.issuperset(image):
        return
    parts = name.split("/")
    domain = parts.pop(0) if len(parts) > 1 and _is_domain(parts[0]) else "docker.io"
    path = "/".join(parts)
    if path.lower() != path:
        shown = path if len(parts) > 1 or domain not in _HUB else f"library/{path}"
        raise Failure(f"invalid reference format: repository name ({shown}) must be lowercase")
    if not all(_component(part) for part in parts):
        raise Failure("invalid reference format")
    if tag and (tag[0] not in _TAG_FIRST or not _TAG.issuperset(tag) or len(tag) > 128):
        raise Failure("invalid reference format")
    if ("@" in image and not _is_digest(digest)) or (name + ":" == image):
        raise Failure("invalid reference format")


def tagged(image: str) -> str:
    """``image`` with the default tag where it has neither tag nor digest."""
    _, tag, digest = split(image)
    return image if tag or digest else f"{image}:latest"


_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}
_SYSTEMS = frozenset(
    [
        "aix",
        "android",
        "darwin",
        "dragonfly",
        "freebsd",
        "illumos",
        "ios",
        "js",
        "linux",
        "netbsd",
        "openbsd",
        "plan9",
        "solaris",
        "windows",
    ]
)
_KNOWN = frozenset(
    [
        "386",
        "amd64",
        "arm",
        "arm64",
        "loong64",
        "mips",
        "mips64",
        "mips64le",
        "mipsle",
        "ppc64",
        "ppc64le",
        "riscv64",
        "s390x",
        "wasm",
    ]
)


def platform_document(text: str, refusal: str = "") -> str:
    """The platform as the API takes it, a JSON object. Raises Failure that begins with ``refusal``."""
    from sampan.wire import document

    parts = platform(text, refusal).split("/")
    return document.encode(dict(zip(("os", "architecture", "variant"), parts, strict=False)))


_PLATFORM_RULES = (
    ("OS component", "OSAndVersion specifier component"),
    ("component", "platform specifier component"),
)
_REGEX = (r'"^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.-]*)\\))?$"', '"^[A-Za-z0-9_.-]+$"')


def platform(text: str, refusal: str = "error parsing specified platform: ") -> str:
    """``linux/arm64`` in its normal form. Raises Failure in Docker's words, after ``refusal``."""
    words = [word.lower() for word in text.split("/", 3)]
    bad = f'{refusal}"{text}": '
    for at, part in enumerate(text.split("/", 3)):
        if part and _TAG.issuperset(part):
            continue
        what, rule = _PLATFORM_RULES[at > 0]
        raise Failure(
            f'{refusal}"{part}" is an invalid {what} of "{text}": {rule} must match {_REGEX[at > 0]}: '
            "invalid argument"
        )
    if len(words) > 3:
        raise Failure(bad + "cannot parse platform specifier: invalid argument")
    words = [_ARCHITECTURES.get(word, word) for word in words]
    if len(words) == 1:
        if words[0] in _SYSTEMS:
            import platform as host

            machine = host.machine()
            return f"{words[0]}/{_ARCHITECTURES.get(machine, machine)}"
        if words[0] in _KNOWN:
            return f"linux/{words[0]}"
        raise Failure(bad + "unknown operating system or architecture: invalid argument")
    return "/".join(words)
