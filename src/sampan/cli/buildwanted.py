"""A build as the command line asks for it, and the conversation about it with the engine.

An engine that knows no sessions is sent the whole context, as Docker's client does; what only a session can
do is then refused in the engine's words.
"""

from __future__ import annotations

import os

from sampan.cli import buildrequest
from sampan.cli.buildrequest import is_remote
from sampan.cli.context import write
from sampan.errors import Failure
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sampan.cli.buildcache import Caches
    from sampan.cli.buildcontext import Found
    from sampan.cli.buildoutputs import Results
    from sampan.cli.command import Options
    from sampan.cli.context import Context

    Messages = Iterator[Any]

_IMAGE, _LAYOUT = "docker-image://", "oci-layout://"


class Said:
    """Shows what is said on the descriptor ``fd``; with ``quiet`` it is kept until something fails, or only
    the last ``latest`` of it."""

    __slots__ = ("_fd", "_kept", "_latest", "_quiet")

    def __init__(self, *, quiet: bool, fd: int = 1, latest: int = 0) -> None:
        self._quiet = quiet
        self._latest = latest
        self._fd = fd
        self._kept: list[str] = []

    def __call__(self, text: str) -> None:
        if self._quiet:
            self._kept.append(text)
            if self._latest:
                del self._kept[: -self._latest]
        else:
            write(self._fd, text)

    def failed(self) -> None:
        """Show what was kept."""
        write(2, "".join(self._kept))


class Wanted:
    """``path`` is the context's. Raises Failure for what the command line has wrong."""

    def __init__(self, options: Options, path: str) -> None:
        self._options = options
        self._path = path
        self.results: Results | None = None
        self.caches: Caches | None = None
        if options["cache-from"] or options["cache-to"]:
            from sampan.cli.buildcache import Caches

            self.caches = Caches(options["cache-from"], options["cache-to"])
        self._hello: dict[str, Any] = {}
        self._given: dict[str, Any] = {"contexts": {}}
        self._take_inputs()
        self._found: Found | None = None
        if path != "-" and not is_remote(path):
            from sampan.cli.buildcontext import find

            self._found = find(path, options["file"], buildrequest.input_text)
        said_to = 2 if self.results is not None and self.results.to_stdout else 1
        drawn = options["progress"] in ("tty", "rawjson")
        quiet = options["quiet"] or options["progress"] == "quiet" or drawn
        self.said = Said(quiet=quiet, fd=said_to, latest=int(drawn))

    def _take_inputs(self) -> None:
        options = self._options
        if options["secret"] or options["ssh"] or options["build-context"]:
            from sampan.cli import buildinputs

            self._given["secrets"] = buildinputs.secrets(options["secret"])
            self._given["agents"] = buildinputs.agents(options["ssh"])
            self._take_contexts(buildinputs.contexts(options["build-context"]))
        if options["output"] or options["push"]:
            from sampan.cli.buildoutputs import Results

            self.results = results = Results(options["output"], push=options["push"])
            self._given["outputs"] = results.sinks
            self._hello["keep"] = results.keep
            self._hello["outputs"] = [{"kind": kind} for kind in results.kinds]
        if options["shell-on-failure"]:
            if not (os.isatty(0) and os.isatty(1)):
                raise Failure("--shell-on-failure: the input device is not a TTY")
            self._given["terminal"] = self._hello["shell"] = True
        if options["explain"]:
            self._hello["explain"] = True
        if options["progress"] in ("rawjson", "tty"):
            self._hello["events"] = True

    def _take_contexts(self, given: dict[str, str]) -> None:
        from sampan.cli.buildcontext import ignored_in, watched

        named: dict[str, str] = {}
        for name, value in given.items():
            if value.startswith(_IMAGE) or is_remote(value):
                named[name] = value
                continue
            kind, folder = "local", value
            if value.startswith(_LAYOUT):
                folder, kind = _layout(value.removeprefix(_LAYOUT))
            folder = os.path.realpath(folder)
            if not os.path.isdir(folder):
                raise Failure(f"failed to get build context {name}: {value} is no folder")
            named[name] = kind
            patterns = ignored_in(folder) if kind == "local" else []
            self._given["contexts"][name] = watched(folder, patterns)
        self._hello["contexts"] = named

    @property
    def _needs_session(self) -> bool:
        return bool(self._hello) or any(self._given.values())

    # ------------------------------------------------------------------ the result

    @property
    def names(self) -> list[str]:
        """The names that the image is to have."""
        return [*self._options["tag"], *(self.results.names if self.results is not None else ())]

    @property
    def keeps(self) -> bool:
        """Whether the engine is to have the image."""
        return self.results is None or self.results.keep

    @property
    def pushes(self) -> bool:
        """Whether the image is to be pushed."""
        return self.results is not None and self.results.push

    def metadata(self, identity: str, provenance: Any = None) -> str:
        """What ``--metadata-file`` holds."""
        found: dict[str, Any] = {}
        if identity:
            found = {"containerimage.config.digest": identity, "containerimage.digest": identity}
        if self.names:
            found["image.name"] = ",".join(self.names)
        if provenance:
            found["buildx.build.provenance"] = provenance
        return document.encode(found) + "\n"

    # ------------------------------------------------------------------ asking

    def messages(self, context: Context) -> Messages:
        """What the engine tells."""
        from sampan.client.api import ApiError

        if self._found is None and not self._needs_session:
            return self._classic(context)
        dockerfile = self._options["file"] if self._found is None else self._found.dockerfile
        path = buildrequest.target(self._options, dockerfile, self._path, self.names, self.caches).replace(
            "/build?", "/build/session?", 1
        )
        try:
            fd, early, _ = context.client.hijack(path, headers=buildrequest.credentials(context))
        except ApiError as error:
            if error.status != 404:
                raise
            if self._needs_session:
                raise Failure(
                    "this engine has no sessions for builds: secrets, agents, contexts by name, other "
                    "results than an image, and reasons are not offered by it"
                ) from None
            context.client.ping()  # what it does not know, it answers in any version
            return self._classic(context)
        return self._conversation(fd, early)

    def _conversation(self, fd: int, early: bytes) -> Messages:
        from sampan.cli.buildsession import Answers, Conversation

        archive = self._greet()
        conversation = Conversation(fd, early, self._hello, Answers(archive=archive, **self._given))
        try:
            yield from conversation.messages()
        finally:
            conversation.close()

    def _greet(self) -> Iterator[bytes] | None:
        """Complete what the session begins with: the archive that is to be sent, if there is one."""
        if self._found is not None:
            found, folders = self._found, self._given["contexts"]
            self._hello |= {"dockerfile": found.text(), "name": found.shown, "folder": found.key}
            folders[""] = found.watched()
            return None
        if is_remote(self._path):
            return None
        return buildrequest.from_input(self._options["file"], self.said)[1]

    def _classic(self, context: Context) -> Messages:
        dockerfile, pieces = self._whole()
        if self._options["compress"]:
            pieces = buildrequest.compressed(pieces)
        from sampan.client.api import json_stream

        headers = buildrequest.credentials(context)
        path = buildrequest.target(self._options, dockerfile, self._path, self.names, self.caches)
        answer = context.client.upload(path, None, pieces, kind="application/x-tar", headers=headers)
        return json_stream(answer)

    def _whole(self) -> tuple[str, Iterator[bytes]]:
        """The Dockerfile's name, and the context as an archive."""
        if self._path == "-":
            return buildrequest.from_input(self._options["file"], self.said)
        found = self._found
        if found is None:
            return self._options["file"], iter(())
        sender = found.sender()

        def pieces() -> Iterator[bytes]:
            yield from sender.pieces(found.extra)
            buildrequest.tell_size(sender.size, self.said)

        return found.dockerfile, pieces()


def _layout(text: str) -> tuple[str, str]:
    """The folder of an OCI layout, and what the engine is told of the image in it."""
    path, at, digest = text.partition("@")
    if at:
        return path, f"oci-layout:@{digest}"
    head, colon, tag = path.rpartition(":")
    if colon and "/" not in tag:
        return head, f"oci-layout:{tag}"
    return path, "oci-layout:"


def push(context: Context, names: list[str], provenance: Any = None, *, quiet: bool) -> None:
    """Push what was built, by each of its names, and with it where it comes from, if that is told."""
    from sampan.cli.push import send

    if not names:
        raise Failure("tag is needed when pushing to registry")
    for name in names:
        send(context, name, quiet=quiet)
        if provenance:
            from sampan.cli.credentials import header

            body = document.encode(provenance).encode()
            context.client.upload(
                f"/build/attest?name={name}",
                None,
                iter((body,)),
                kind="application/json",
                headers=header(context.settings, name),
            ).read()
