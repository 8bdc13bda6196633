"""A visitor: a process forked for one look at, or one change of, a container's files.

It gets a request (a JSON object), a control socket and, where data flows, one end of a pipe. It goes to the
container's files (``places``), does one thing, tells about it on the control socket, and ends:

    {"op": "stat", …}      {"stat": {…}}
    {"op": "pack", …}      {"stat": {…}}, then the archive over the pipe, then {"done": true}
    {"op": "extract", …}   {"stat": {}} when it may come, {"done": true} once the archive is in place
    {"op": "export", …}    {"stat": {}}, then the archive of the whole root over the pipe, then {"done": true}
    {"op": "compose", …}   {"stat": {}}, then a layer over the pipe, then {"done": true, "digest": …}
    {"op": "layer", …}     {"stat": {}}, then an upper directory as a layer, then {"done": true, "size": …, …}
    {"op": "upper", …}     {"stat": {}}, then what an upper directory changed as a layer, then {"done": true}
    {"op": "tree", …}      {"stat": {}}, then the archive of a directory of the host, then {"done": true}
    {"op": "fill", …}      {"stat": {}}, then {"done": true} once the archive is in an empty one
    {"op": "apart", …}     {"stat": {}}, then {"done": true} once a layer shares no file with another
    {"op": "merge", …}     the same of several layers, which are put together to one
    {"op": "changes", …}   {"stat": {}}, then ``KIND path NUL`` for each change, then {"done": true}
    {"op": "unpack", …}    {"result": {…}}, see ``unpacker``: a layer's directory is what is visited

or ``{"failed": kind, "message": text}``, kind being one of ``missing``, ``gone``, ``invalid``, ``internal``.
Before any of these it sends a pidfd of itself, so that the end of its mounts can be awaited.

Law: it ends when the other end of the control socket is closed, wherever it hangs by then: in a file system
that a container serves, or in a pipe that nobody reads.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import posixpath
import resource
import select
import signal
import socket
import stat
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sampan.errors import Failure, HostFailure, Internal, InvalidArgument, of_host
from sampan.linux import process as p
from sampan.sandbox import accounts, channel, packer, places, unpacker
from sampan.sandbox.differences import differences
from sampan.sandbox.extract import Rules, Target, extract
from sampan.sandbox.messages import RootFilesystem
from sampan.sandbox.pack import Packer, write_all
from sampan.sandbox.settle import Settler, take_away
from sampan.sandbox.source import Source
from sampan.sandbox.trees import Changes, Trees
from sampan.sandbox.workers import READING, WRITING, narrow

if TYPE_CHECKING:
    from typing import NoReturn

VISIT = 0x80
"""The first byte of a request to the zygote that asks for a visitor, and not for a keeper."""

_RESOLVE = p.RESOLVE_IN_ROOT | p.RESOLVE_NO_MAGICLINKS
_LOOK = os.O_PATH | os.O_NOFOLLOW
_LINKS_FOLLOWED = 255
_DEEP = 20_000  # Python frames; a path has at most 2,048 components
_BATCH = 1 << 16
# CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETFCAP: what is put into a volume may be anybody's, but no device.
_FILLING = (0, 1, 3, 4, 31)
# Go's fs.FileMode, as the header of a stat carries it.
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


def main(document: bytes, fds: Sequence[int]) -> NoReturn:
    """Serve one request in a process of its own, which ends here."""
    code = 1
    try:
        request = json.loads(document)
        control = socket.socket(fileno=fds[0])
        _end_with(control)
        channel.send(control, {}, (os.pidfd_open(os.getpid()),))
        channel.send(control, _answer(request, control, fds[1:]))
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)
    raise AssertionError("unreachable")


def _end_with(control: socket.socket) -> None:
    """Have the kernel end this process when the other side goes: by SIGIO, whose default that is."""
    for number in (signal.SIGIO, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    fcntl.fcntl(control, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(control, fcntl.F_SETFL, fcntl.fcntl(control, fcntl.F_GETFL) | os.O_ASYNC)
    left = select.poll()
    left.register(control, select.POLLIN | select.POLLHUP)
    if left.poll(0):  # before it could be noticed
        os._exit(1)


def _answer(request: dict[str, Any], control: socket.socket, fds: Sequence[int]) -> dict[str, Any]:
    os.umask(0)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.setrecursionlimit(_DEEP)
    try:
        return _OPERATIONS[request["op"]](request, control, fds)
    except Failure as error:
        kinds = ((HostFailure, "host"), (Internal, "internal"), (Failure, "invalid"))
        kind = next(kind for failure, kind in kinds if isinstance(error, failure))
        return {"failed": kind, "message": str(error)}
    except _Gone as error:
        return {"failed": "gone", "message": str(error)}
    except BrokenPipeError:
        return {"failed": "internal", "message": "the archive's reader went away"}
    except OSError as error:
        return _failed(error, request.get("path", ""))


def _failed(error: OSError, path: str) -> dict[str, Any]:
    if error.errno == errno.ENOENT:
        return {"failed": "missing", "message": path or str(error.filename)}
    why = os.strerror(error.errno or 0).lower()
    wrong = (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.EACCES, errno.EXDEV)
    kind = "invalid" if error.errno in wrong else "host" if of_host(error) else "internal"
    return {"failed": kind, "message": f"lstat {path}: {why}" if path else f"{error.filename}: {why}"}


# ------------------------------------------------------------------ operations


def _stat(request: dict[str, Any], _control: socket.socket, fds: Sequence[int]) -> dict[str, Any]:
    root = _enter(request, fds)
    narrow(READING)
    return {"stat": look(root, request["path"])}


def _pack(request: dict[str, Any], control: socket.socket, fds: Sequence[int]) -> dict[str, Any]:
    root, path = _enter(request, fds), request["path"]
    narrow(READING)
    found = look(root, path)
    channel.send(control, {"stat": found})
    packer = Packer(fds[-1])
    pack_at(packer, root, path)
    packer.finish()
    return {"done": True}


def _extract(request: dict[str, Any], control: socket.socket, fds: Sequence[int]) -> dict[str, Any]:
    root, path = _enter(request, fds), request["path"]
    narrow(WRITING, None)
    try:
        fd = p.openat2(root, path, os.O_RDONLY | os.O_DIRECTORY, resolve=_RESOLVE)
    except NotADirectoryError:
        raise InvalidArgument("extraction point is not a directory") from None
    resolved = follow(root, path)
    _check_writable(fd, resolved, request["volumes"])
    owner = None
    if request["owner"]:
        account = accounts.resolve(request["owner"])
        owner = (account.uid, account.gid)
    channel.send(control, {"stat": {}})
    target = Target(fd=fd, anchor=root, path=os.fsencode(resolved))
    extract(Source(fds[-1]), target, Rules(keep_kinds=request["keep_kinds"], owner=owner, nodes=False))
    return {"done": True}


def _export(request: dict[str, Any], control: socket.socket, fds: Sequence[int]) -> dict[str, Any]:
    if request["root"] is None:
        root = _enter_running(fds[0], alone=True)
    else:
        root = places.enter_reading(_root(request))
    narrow(READING)
    channel.send(control, {"stat": {}})
    packer = Packer(fds[-1])
    packer.tree(root, None, b"")
    packer.finish()
    return {"done": True}


def _upper(request: dict[str, Any], control: socket.socket, fds: Sequence[int]) -> dict[str, Any]:
    root = _root(request)
    below, made = Trees(()), 0
    if root.kind == "tree":
        upper, below, made = places.open_whole(root)
    else:
        upper = os.open(f"{root.base}/{root.upper}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(upper)
    unpacker.confine(upper, packer.CAPABILITIES, READING, (control.fileno(), *fds, *below.fds))
    channel.send(control, {"stat": {}})
    packer.serve(fds[-1], upper, below, made)
    return {"done": True}


def _tree(request: dict[str, Any], control: socket.socket, fds: Sequence[int]) -> dict[str, Any]:
    root = os.open(request["directory"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    places.stand_in_directory(root)
    narrow(READING)
    channel.send(control, {"stat": {}})
    packer = Packer(fds[-1])
    packer.tree(root, b"./", b"./")
    packer.finish()
    return {"done": True}


def _fill(request: dict[str, Any], control: socket.socket, fds: Sequence[int]) -> dict[str, Any]:
    root = os.open(request["directory"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(root)
    unpacker.confine(root, _FILLING, WRITING, (control.fileno(), *fds))
    channel.send(control, {"stat": {}})
    extract(Source(fds[-1]), Target(fd=root, anchor=root, path=b"/"), Rules(nodes=False, top=True))
    return {"done": True}


def _changes(request: dict[str, Any], control: socket.socket, fds: Sequence[int]) -> dict[str, Any]:
    root = _root(request)
    if root.kind:
        upper, below, _ = places.open_whole(root)
    else:
        upper, lower = places.open_both(root)
        below = Trees((lower,))
    places.stand_in_directory(upper)
    narrow(READING)
    channel.send(control, {"stat": {}})
    batch = bytearray()
    for kind, path in differences(upper, below, whole=root.kind == "tree"):
        batch += b"%d%b\0" % (kind, path)
        if len(batch) >= _BATCH:
            write_all(fds[-1], bytes(batch))
            batch.clear()
    write_all(fds[-1], bytes(batch))
    return {"done": True}


def _compose(request: dict[str, Any], control: socket.socket, fds: Sequence[int]) -> dict[str, Any]:
    # Only builds need it. Everything is loaded before the host's tree is out of sight.
    from sampan.sandbox.compose import Composer, Order
    from sampan.sandbox.placing import Placer
    from sampan.wire.ignore import Matcher

    tree, made = request["tree"], request["made"]
    placer = place = None
    if made:
        # Layers are not to share files; a directory of the build's own is soon gone.
        place = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        placer = Placer(place, links=request["links"] if isinstance(tree, str) else 0)
    if isinstance(tree, str):
        source = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        root = places.enter_reading(_root(request))
    else:
        source, root = places.enter_reading_from(
            RootFilesystem(**{**tree, "lowers": tuple(tree["lowers"])}), _root(request)
        )
    order = request["order"]
    mode = order["mode"]
    owner = None
    if order["chown"]:
        account = accounts.resolve(order["chown"])
        # A number alone is the group's too, as the reference of Dockerfiles has it.
        owner = (account.uid, account.uid if order["chown"].isdecimal() else account.gid)
    composer = Composer(
        fds[-1],
        root,
        source,
        Order(
            sources=tuple(order["sources"]),
            target=order["target"],
            owner=owner,
            mode=tuple(map(tuple, mode)) if isinstance(mode, list) else mode,
            parents=order["parents"],
            link=order["link"],
            whole=order["whole"],
            keep_owners=order["keep_owners"],
            excluded=Matcher(order["excluded"]).ignores,
            epoch=order["epoch"],
            since=order["since"],
        ),
        placer,
    )
    narrow(READING if placer is None else WRITING, () if place is None else (place,))
    channel.send(control, {"stat": {}})
    composer.run()
    found = {"done": True, "digest": composer.digest, "newest": composer.newest}
    if placer is not None:
        found |= {
            "size": placer.size,
            "entries": placer.entries,
            "max_uid": placer.max_uid,
            "max_gid": placer.max_gid,
        }
        found |= {"implied": placer.implied, "shared": placer.shared}
    return found


def _layer(request: dict[str, Any], control: socket.socket, fds: Sequence[int]) -> dict[str, Any]:
    root = _root(request)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    stubs = request["stubs"]
    if root.kind == "tree":
        upper, below, made = places.open_whole(root)
        places.stand_in_directory(upper)
        narrow(WRITING, (upper,))
        channel.send(control, {"stat": {}})
        take_away(upper, below.fds, stubs)
        Changes(fds[-1], made, request["latest"]).run(upper, below)
        return {"done": True, "size": 0, "entries": 0, "max_uid": 0, "max_gid": 0}
    upper = os.open(f"{root.base}/{root.upper}", flags)
    lowers = [os.open(f"{root.base}/{lower}", flags) for lower in root.lowers] if stubs else []
    places.stand_in_directory(upper)
    narrow(WRITING, (upper,))
    channel.send(control, {"stat": {}})
    settler = Settler(fds[-1], request["latest"])
    settler.run(upper, lowers, stubs)
    found = {"size": settler.size, "entries": settler.entries}
    return {"done": True, **found, "max_uid": settler.max_uid, "max_gid": settler.max_gid}


def _merge(request: dict[str, Any], control: socket.socket, fds: Sequence[int]) -> dict[str, Any]:
    from sampan.sandbox.merge import Merger

    root = _root(request)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    made = os.open(request["made"], flags)
    layers = [os.open(f"{root.base}/{name}", flags) for name in (root.upper, *root.lowers)]
    places.stand_in_directory(made, making=True)
    narrow(WRITING, (made,))
    Merger(made).run(layers)
    channel.send(control, {"stat": {}})
    settler = Settler(fds[-1], request["latest"])
    settler.run(made, (), ())
    found = {"size": settler.size, "entries": settler.entries}
    return {"done": True, **found, "max_uid": settler.max_uid, "max_gid": settler.max_gid}


def _apart(request: dict[str, Any], control: socket.socket, _fds: Sequence[int]) -> dict[str, Any]:
    from sampan.sandbox.placing import set_apart

    made = os.open(request["made"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    places.stand_in_directory(made, making=True)
    narrow(WRITING, (made,))
    channel.send(control, {"stat": {}})
    set_apart(made, request["links"])
    return {"done": True}


def _unpack(request: dict[str, Any], control: socket.socket, fds: Sequence[int]) -> dict[str, Any]:
    archive, root, *pace = fds
    # Where the daemon found its libraries: this process may use them to decompress, and nothing else.
    sys.path.extend(request["libraries"])
    os.fchdir(root)
    keep = (control.fileno(), *fds)
    return {"result": unpacker.serve(request, archive, root, keep, *pace)}


_OPERATIONS: dict[str, Callable[[dict[str, Any], socket.socket, Sequence[int]], dict[str, Any]]] = {
    "stat": _stat,
    "pack": _pack,
    "extract": _extract,
    "export": _export,
    "upper": _upper,
    "compose": _compose,
    "layer": _layer,
    "tree": _tree,
    "fill": _fill,
    "merge": _merge,
    "apart": _apart,
    "changes": _changes,
    "unpack": _unpack,
}


def _enter(request: dict[str, Any], fds: Sequence[int]) -> int:
    if request["root"] is None:
        return _enter_running(fds[0])
    binds = [places.Bind(**bind) for bind in request["binds"]]
    return places.enter_stopped(_root(request), binds, writable=request["writable"])


class _Gone(Exception):
    """The container ended before it could be entered. Later, files of its /proc may say the same (ESRCH)."""


def _enter_running(pidfd: int, *, alone: bool = False) -> int:
    try:
        return places.enter_running(pidfd, alone=alone)
    except ProcessLookupError as error:
        raise _Gone(str(error)) from error


def _root(request: dict[str, Any]) -> RootFilesystem:
    root = request["root"]
    return RootFilesystem(**{**root, "lowers": tuple(root["lowers"])})


def _check_writable(fd: int, resolved: str, volumes: Sequence[str]) -> None:
    """Refuse in Docker's words, before anything of the archive is looked at."""
    if not os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        return
    if any(resolved == volume or resolved.startswith(volume.rstrip("/") + "/") for volume in volumes):
        raise InvalidArgument("mounted volume is marked read-only")
    raise InvalidArgument("container rootfs is marked read-only")


# ------------------------------------------------------------------ paths, by Docker's rules


def look(root: int, path: str) -> dict[str, Any]:
    """What lies at ``path``, as Docker's stat header tells it; ``mtime`` in nanoseconds."""
    fd = p.openat2(root, path, _LOOK, resolve=_RESOLVE)
    try:
        there = os.fstat(fd)
    finally:
        os.close(fd)
    mode = there.st_mode
    return {
        "name": posixpath.basename(path.rstrip("/")) or "/",
        "size": there.st_size,
        "mode": mode & 0o777
        | _GO_KINDS.get(stat.S_IFMT(mode), 0)
        | sum(bit for own, bit in _GO_BITS.items() if mode & own),
        "mtime": there.st_mtime_ns,
        "target": follow(root, path) if stat.S_ISLNK(mode) else "",
    }


def follow(root: int, path: str) -> str:
    """``path`` with every link on its way followed, as far as it exists; clean and absolute."""
    left = [part for part in path.split("/") if part][::-1]
    done: list[str] = []
    links = 0
    while left:
        part = left.pop()
        if part == "..":
            del done[-1:]
            continue
        if part in ("", "."):
            continue
        target = _link(root, "/".join((*done, part)))
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > _LINKS_FOLLOWED:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if target.startswith("/"):
            done.clear()
        left += [piece for piece in target.split("/") if piece][::-1]
    return "/" + "/".join(done)


def _link(root: int, path: str) -> str | None:
    """Where a symbolic link leads; None for everything else, also for nothing."""
    try:
        fd = p.openat2(root, path, _LOOK, resolve=_RESOLVE)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def pack_at(packer: Packer, root: int, path: str) -> None:
    """Add what lies at ``path`` under its own last name; a directory asked for by ``/.`` is called ``.``."""
    fd = p.openat2(root, path, _LOOK, resolve=_RESOLVE)
    try:
        directory = stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)
    base = os.fsencode(posixpath.basename(path.rstrip("/")))
    if directory:
        fd = p.openat2(root, path, os.O_RDONLY | os.O_DIRECTORY, resolve=_RESOLVE)
        try:
            packer.tree(fd, base + b"/", base + b"/")
        finally:
            os.close(fd)
        return
    fd = p.openat2(root, posixpath.dirname(path), os.O_PATH | os.O_DIRECTORY, resolve=_RESOLVE)
    try:
        packer.file(fd, base, base)
    finally:
        os.close(fd)
