"""Git repositories as contexts and as sources of ADD: what their addresses say. No I/O.

``https://HOST/PATH.git#REF:FOLDER``, ``git://``, ``ssh://`` and ``USER@HOST:PATH`` are understood as BuildKit
does, its queries (``?ref=…&subdir=…``) too. Law: nothing of an address can be taken for an option, another
transport or a place outside the repository.
Source: "Git contexts" of Docker's build documentation.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from sampan.errors import InvalidArgument
from sampan.wire.quoting import quoted

_SCP = re.compile(r"[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:(?!/)[^#?]*")
_SCHEMES = ("http", "https", "git", "ssh")
_WEB = ("http", "https")
_UNSAFE_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/]|/$|\.lock$")
_FULL = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_QUERIES = ("ref", "branch", "tag", "subdir", "checksum", "commit", "keep-git-dir", "submodules")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitSource:
    """``url`` is what git is given; "" for ``ref`` means the repository's own branch, for ``folder`` all of
    it. ``checksum`` is the beginning of the commit that it has to be; ``keep`` brings the ``.git`` directory.
    """

    url: str
    ref: str = ""
    folder: str = ""
    checksum: str = ""
    keep: bool = False
    submodules: bool = True

    @property
    def shown(self) -> str:
        """The address without the password that it may hold."""
        return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:xxxxx@", self.url)

    @property
    def commit(self) -> str:
        """The commit, where the address names it whole: what is there never changes. Else ""."""
        return next((text for text in (self.checksum, self.ref) if _FULL.fullmatch(text)), "")

    @property
    def by_ssh(self) -> bool:
        return not self.url.startswith(("http://", "https://", "git://"))


def git_source(text: str) -> GitSource | None:
    """What the address of a repository says; None for what is none. InvalidArgument for a bad one."""
    if text.startswith("github.com/"):
        text = f"https://{text}"
    address, _, fragment = text.partition("#")
    address, _, query = address.partition("?")
    scheme, separator, _ = address.partition("://")
    if separator:
        if scheme not in _SCHEMES or (scheme in _WEB and not _is_repository(address)):
            return None
    elif not _SCP.fullmatch(address):
        return None
    ref, _, folder = fragment.partition(":")
    found = {"ref": ref, "subdir": folder, **_queries(text, query)}
    url = remote_url(address)
    wanted = next((found[name] for name in ("ref", "branch", "tag") if found.get(name)), "")
    if found.get("branch"):
        wanted = f"refs/heads/{found['branch']}"
    elif found.get("tag"):
        wanted = f"refs/tags/{found['tag']}"
    checksum = found.get("checksum") or found.get("commit") or ""
    return GitSource(
        url=url,
        ref=_ref(wanted),
        folder=_folder(found["subdir"]),
        checksum=commit_prefix(checksum) if checksum else "",
        keep=_flag(found, "keep-git-dir", default=False),
        submodules=_flag(found, "submodules", default=True),
    )


def _is_repository(address: str) -> bool:
    parts = urlsplit(address)
    return parts.path.endswith(".git") or parts.hostname == "github.com"


def _queries(text: str, query: str) -> dict[str, str]:
    found = dict(parse_qsl(query, keep_blank_values=True))
    for name in found:
        if name not in _QUERIES:
            raise InvalidArgument(f"unexpected query {quoted(name)} in {text}")
    return found


def _flag(found: dict[str, str], name: str, *, default: bool) -> bool:
    text = found.get(name)
    if text is None:
        return default
    if text.lower() not in ("", "1", "0", "true", "false"):
        raise InvalidArgument(f"invalid {name}: {quoted(text)}")
    return text.lower() in ("", "1", "true")


def remote_url(url: str) -> str:
    """The address of a repository, if it is one that may be asked. InvalidArgument for others."""
    scheme, separator, rest = url.partition("://")
    plain = not re.search(r"[\x00-\x20\x7f]", url)
    if separator:
        valid = scheme in _SCHEMES and plain and rest[:1] not in ("", "-", "/")
        host = rest.partition("/")[0].rpartition("@")[2]
        valid = valid and not host.startswith("-")
    else:
        valid = plain and _SCP.fullmatch(url) is not None and not url.startswith("-")
        valid = valid and not url.partition("@")[2].startswith("-")
    if not valid:
        raise InvalidArgument(f"{quoted(url)} is no address of a git repository that may be fetched")
    return url


def _ref(text: str) -> str:
    if text and _UNSAFE_REF.search(text):
        raise InvalidArgument(f"invalid ref {quoted(text)} of a git repository")
    return text


def _folder(text: str) -> str:
    path = posixpath.normpath(text.lstrip("/")) if text else ""
    if path == ".." or path.startswith("../") or "\0" in path:
        raise InvalidArgument(f"invalid folder {quoted(text)} of a git repository: it leads out of it")
    return "" if path == "." else path


def commit_prefix(text: str) -> str:
    """The beginning of a commit's name, at least seven digits. InvalidArgument for what is none."""
    if not re.fullmatch(r"[0-9a-f]{7,64}", text.lower()):
        raise InvalidArgument(f"invalid checksum {quoted(text)} of a git repository: it is a commit's name")
    return text.lower()


def relative(url: str, base: str) -> str:
    """A submodule's address, which may begin with ``./`` or ``../`` to be beside ``base``."""
    if not url.startswith(("./", "../")):
        return remote_url(url)
    scheme, separator, rest = base.partition("://")
    if not separator:
        scheme, separator, rest = "", "", base
    mark = "/" if separator else ":"
    host, _, path = rest.partition(mark)
    joined = posixpath.normpath(posixpath.join("/", path.rstrip("/"), url))
    return remote_url(f"{scheme}{separator}{host}{mark}{joined.lstrip('/')}")
