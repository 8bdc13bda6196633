"""Fetching one commit of a git repository, with the host's git, for a context or an ADD.

Theory: nothing is ever checked out. The commit and its submodules are fetched into a bare repository of our
own, their trees are put together to one tree, and git tells that as an archive, which goes the way of every
archive that a client sends. So no hook, filter or link of a repository is ever followed, and equal commits
give equal archives, whose times are the commit's.

Each git command runs in a box (``sandbox.gitbox``) that can write to this repository alone, under the filter
of a container without capabilities, and as nobody unless it has to use the user's keys for ssh.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import os
import posixpath
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from sampan.build import gitsource
from sampan.build.gitsource import GitSource
from sampan.errors import InvalidArgument, NotFound, Unavailable
from sampan.sandbox.gitbox import PLACE
from sampan.sandbox.seccomp import compile_filter
from sampan.spec.seccomp_default import default_profile
from sampan.wire import tar
from sampan.wire.quoting import quoted

_BOOT = "import sys; sys.path[:] = {path!r}; from sampan.sandbox.gitbox import main; sys.exit(main())"
_NOBODY = 65534
_DEPTH, _COUNT = 16, 256  # of submodules
_LISTING = 32 << 20  # bytes of what git lists
_PIECE = 1 << 18
_BLOCK = 512
_INDEX = "index-"
_LINK = "160000"
_TREE = re.compile(r"([0-9a-f]{40,64}) tree [0-9]+\n")
_NO_COMMIT = "0" * 40
_ATTRIBUTES = "* -export-ignore -export-subst\n"
_ENVIRONMENT = {
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "GIT_ALLOW_PROTOCOL": "http:https:git:ssh",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes",
    "GIT_AUTHOR_NAME": "sampan",
    "GIT_AUTHOR_EMAIL": "sampan",
    "GIT_COMMITTER_NAME": "sampan",
    "GIT_COMMITTER_EMAIL": "sampan",
}
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.ext.allow=never",
    "protocol.file.allow=never",
    "tar.umask=0022",
    "gc.auto=0",
)
_INHERITED = ("PATH", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
Write = Callable[[bytes], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One that was fetched: its name, the tree that it comes to with its submodules, seconds since 1970."""

    name: str
    tree: str
    time: int


class Repository:
    """A bare repository in ``directory``, which must be empty and ends with the build."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._count = 0
        self._by_ssh = False
        self._program = ""

    async def fetch(self, source: GitSource) -> Commit:
        """Fetch what ``source`` means. Unavailable with git's words where that cannot be had."""
        self._program = shutil.which("git") or ""
        if not self._program:
            raise Unavailable(f"{source.shown} cannot be fetched: this engine's host has no git, install it")
        self._by_ssh = source.by_ssh
        self._prepare()
        await self._git("init", "--quiet", "--bare", "--template=")
        self._write("info/attributes", _ATTRIBUTES)
        name = await self._fetched(source, source.ref, source.checksum)
        if source.checksum and not name.startswith(source.checksum):
            raise InvalidArgument(
                f"digest mismatch for {source.shown}: got commit {name}, expected {source.checksum}"
            )
        tree = await self._whole(name, source, 0) if source.submodules else f"{name}^{{tree}}"
        tree = await self._tree(tree, source)
        time = int(await self._git("log", "-1", "--format=%ct", name, "--"))
        return Commit(name=name, tree=tree, time=time)

    async def archive(self, commit: Commit, source: GitSource, write: Write) -> None:
        """Tell the files of the commit as a plain tar; ``.git`` first, where that is to be kept."""
        date = f"{commit.time} +0000"
        dated = await self._git(
            "commit-tree", "-m", "files", commit.tree, GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date
        )
        if source.keep and not source.folder:
            await self._keepable(commit, source)
            await asyncio.to_thread(self._told_itself, commit, write)
        await self._stream(_after_comment(write), "archive", "--format=tar", dated.strip())

    def _prepare(self) -> None:
        for path in ("", "/work", "/info"):
            path = f"{self._directory}{path}"
            os.makedirs(path, 0o700, exist_ok=True)
            if os.geteuid() == 0 and not self._by_ssh:
                os.chown(path, _NOBODY, _NOBODY)

    def _write(self, name: str, text: str) -> None:
        # Nothing but what git itself put there is in this directory, and git is not running.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(f"{self._directory}/{name}", flags, 0o644), "w") as file:
            file.write(text)

    # ------------------------------------------------------------------ what is fetched

    async def _fetched(self, source: GitSource, ref: str, commit: str = "") -> str:
        """The commit that ``ref`` is, after fetching it: of the newest depth if the server can do that."""
        self._count += 1
        here = f"refs/sampan/{self._count}"
        words = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
        wanted = ref or "HEAD"
        tries: list[tuple[str, ...]] = [("--depth=1", "--", source.url, f"+{wanted}:{here}")]
        tries.append(("--", source.url, f"+{wanted}:{here}"))
        if _is_commit(ref):
            # A server may give away only what a name leads to.
            tries.append(("--", source.url, "+refs/*:refs/fetched/*"))
        failure = ""
        for arguments in tries:
            try:
                await self._git(*words, *arguments)
                found = ref if arguments[-1].endswith("/*") else here
                return await self._commit(found)
            except _GitFailed as error:
                failure = failure or str(error)
                if "couldn't find remote ref" in str(error) and not _is_commit(ref):
                    break
        if "couldn't find remote ref" in failure:
            raise NotFound(f"repository {source.shown} does not contain ref {quoted(wanted)}")
        raise Unavailable(f"failed to fetch {source.shown}: {failure}")

    async def _commit(self, name: str) -> str:
        return (await self._git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")).strip()

    async def _tree(self, tree: str, source: GitSource) -> str:
        name = f"{tree}:{source.folder}" if source.folder else tree
        # "NAME KIND SIZE", or that it is missing; a line end in it would be another question.
        said = "" if "\n" in name else await self._git("cat-file", "--batch-check", text=f"{name}\n")
        found = _TREE.fullmatch(said)
        if found is None:
            raise NotFound(f"subdir not found: {source.folder} in {source.shown}")
        return found[1]

    async def _whole(self, commit: str, source: GitSource, depth: int) -> str:
        """The tree of a commit with those of its submodules in it."""
        links = await self._links(commit)
        if not links:
            return f"{commit}^{{tree}}"
        if depth >= _DEPTH:
            raise InvalidArgument(f"submodules of {source.shown} are more than {_DEPTH} deep")
        urls = await self._submodule_urls(commit)
        trees: dict[str, str] = {}
        for path, wanted in links.items():
            if path not in urls:
                raise InvalidArgument(f"{source.shown}: no url found for submodule path {quoted(path)}")
            if self._count >= _COUNT:
                raise InvalidArgument(f"{source.shown} has more than {_COUNT} submodules")
            inner = GitSource(url=gitsource.relative(urls[path], source.url), ref=wanted)
            if inner.by_ssh and not self._by_ssh:
                raise InvalidArgument(f"submodule {quoted(path)} of {source.shown} needs ssh: {inner.shown}")
            trees[path] = await self._whole(await self._fetched(inner, wanted), inner, depth + 1)
        inside = PLACE if os.geteuid() == 0 else self._directory
        index = {
            "GIT_INDEX_FILE": f"{inside}/{_INDEX}{self._count}-{depth}",
            "GIT_WORK_TREE": f"{inside}/work",
        }
        await self._git("read-tree", commit, **index)
        gone = "".join(f"0 {_NO_COMMIT}\t{path}\0" for path in links)
        await self._git("update-index", "-z", "--index-info", text=gone, **index)
        for path, tree in trees.items():
            await self._git("read-tree", f"--prefix={path}/", tree, **index)
        return (await self._git("write-tree", **index)).strip()

    async def _links(self, commit: str) -> dict[str, str]:
        """The commits that paths stand for."""
        found: dict[str, str] = {}
        for entry in (await self._git("ls-tree", "-r", "-z", commit)).split("\0"):
            kind, _, path = entry.partition("\t")
            if kind.startswith(_LINK):
                found[path] = kind.split(" ")[2]
        return found

    async def _submodule_urls(self, commit: str) -> dict[str, str]:
        try:
            text = await self._git("config", "-z", "--blob", f"{commit}:.gitmodules", "--list")
        except _GitFailed:
            return {}
        values: dict[str, dict[str, str]] = {}
        for entry in text.split("\0"):
            key, _, value = entry.partition("\n")
            section, _, name = key.rpartition(".")
            if section.startswith("submodule."):
                values.setdefault(section, {})[name] = value
        return {one["path"]: one["url"] for one in values.values() if "path" in one and "url" in one}

    # ------------------------------------------------------------------ .git

    async def _keepable(self, commit: Commit, source: GitSource) -> None:
        """Make of the bare repository what a clone at that commit would have."""
        await self._git("read-tree", commit.name)
        await self._git("update-ref", "--no-deref", "HEAD", commit.name)
        await self._git("config", "core.bare", "false")
        await self._git("config", "remote.origin.url", source.shown)

    def _told_itself(self, commit: Commit, write: Write) -> None:
        for folder, folders, files in os.walk(self._directory):
            folders.sort()
            if folder == self._directory:
                folders[:] = [name for name in folders if name not in ("info", "work")]
            inside = os.path.relpath(folder, self._directory)
            _member(write, posixpath.normpath(f".git/{inside}"), commit.time)
            for name in sorted(files):
                if not name.startswith(_INDEX):
                    path = f"{folder}/{name}"
                    _member(write, posixpath.normpath(f".git/{inside}/{name}"), commit.time, path)

    # ------------------------------------------------------------------ git

    async def _git(self, *arguments: str, text: str = "", **environment: str) -> str:
        """What a git command prints. _GitFailed with the last line of its complaint."""
        said = bytearray()
        await self._stream(said.extend, *arguments, text=text, limit=_LISTING, **environment)
        return said.decode(errors="surrogateescape")

    async def _stream(
        self, write: Write, *arguments: str, text: str = "", limit: int = 0, **environment: str
    ) -> None:
        process = await self._started(arguments, environment)
        try:
            assert process.stdin
            assert process.stdout
            assert process.stderr
            process.stdin.write(text.encode(errors="surrogateescape"))
            process.stdin.close()
            complaints = asyncio.create_task(_read_last(process.stderr))
            size = 0
            while data := await process.stdout.read(_PIECE):
                size += len(data)
                if limit and size > limit:
                    raise InvalidArgument("a git repository has too many files")
                await asyncio.to_thread(write, data)
            failure = (await complaints).decode(errors="replace")
            if await process.wait():
                raise _GitFailed(_last_line(failure))
        except BaseException:
            if process.returncode is None:
                process.kill()
            await process.wait()
            raise

    async def _started(
        self, arguments: tuple[str, ...], environment: dict[str, str]
    ) -> asyncio.subprocess.Process:
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        if self._by_ssh and "SSH_AUTH_SOCK" in os.environ:
            inherited["SSH_AUTH_SOCK"] = os.environ["SSH_AUTH_SOCK"]
        request = {
            "program": self._program,
            "arguments": [*settings, *arguments],
            "user": None if self._by_ssh else _NOBODY,
            "environment": {**inherited, **_ENVIRONMENT, **environment},
            "filter": await asyncio.to_thread(_filter),
        }
        path = [entry for entry in sys.path if os.path.isabs(entry)]
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _BOOT.format(path=path)),
            msgspec.json.encode(request).decode(),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            cwd=self._directory,
        )


@functools.cache
def _filter() -> str:
    """What a container without capabilities may call, in base64; empty on a machine without a profile."""
    try:
        return base64.b64encode(compile_filter(default_profile(), capabilities=())).decode()
    except InvalidArgument:
        return ""


class _GitFailed(Exception):
    """Its text is git's."""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = next(
        (line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1] if lines else ""
    )
    return found or "git failed"


async def _read_last(stream: asyncio.StreamReader) -> bytes:
    """The end of what comes."""
    kept = b""
    while data := await stream.read(_PIECE):
        kept = (kept + data)[-_PIECE:]
    return kept


def _is_commit(ref: str) -> bool:
    return len(ref) in (40, 64) and set(ref) <= set("0123456789abcdef")


def _after_comment(write: Write) -> Write:
    """Leave out the first member if it is the comment that names our own commit."""
    start: bytearray | None = bytearray()

    def rest(data: bytes) -> None:
        nonlocal start
        if start is None:
            write(data)
            return
        start += data
        if len(start) >= 2 * _BLOCK:
            write(bytes(start[2 * _BLOCK :] if start[156:157] == b"g" else start))
            start = None

    return rest


def _member(write: Write, name: str, seconds: int, path: str = "") -> None:
    """Tell a directory, or the file at ``path``, as root's."""
    data = b""
    if path:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            data = file.read()
    kind, mode = (tar.REGULAR, 0o644) if path else (tar.DIRECTORY, 0o755)
    encoded = os.fsencode(name if path else f"{name}/")
    member = tar.Member(name=encoded, kind=kind, mode=mode, mtime=seconds * 1_000_000_000, size=len(data))
    write(tar.header(member) + data + bytes(tar.padding(len(data))))
