"""That a flag has an effect: the same command with it asks the engine for something else, or does something
else.

Each command runs in this process against a daemon that answers from a table, once as it is and once with the
flag, in a folder of its own; what is compared is every request with its body, the exit code, the output, the
messages and the files that are left.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.cli.main import main
from tests.golden.recorder import Recorder

CONTAINER: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "container.json").read_text())
PATIENCE = 1.0
"""Seconds after which a command is held to go on for ever."""
GOES_ON = -1

_LISTED = {
    "Command": "sh -c 'sleep 1000000000'",
    "Created": 1714979289,
    "Id": CONTAINER["Id"],
    "Image": "busybox:latest",
    "ImageID": CONTAINER["Image"],
    "Labels": {"a": "b"},
    "Mounts": [],
    "Names": ["/box"],
    "Ports": [],
    "SizeRootFs": 4096,
    "SizeRw": 512,
    "State": "running",
    "Status": "Up 2 hours",
}
_IMAGE = {
    "Containers": -1,
    "Created": 1714979289,
    "Id": CONTAINER["Image"],
    "Labels": None,
    "RepoDigests": ["busybox@sha256:" + "1" * 64],
    "RepoTags": ["busybox:latest"],
    "SharedSize": -1,
    "Size": 4096,
}
_STEP = {
    "Comment": "a comment",
    "Created": 1714979289,
    "CreatedBy": "a very long line that was run in the shell when the image was built",
    "Id": CONTAINER["Image"],
    "Size": 4096,
    "Tags": ["busybox:latest"],
}
_NETWORK = {"Id": "2" * 64, "Name": "net", "Driver": "bridge", "Scope": "local", "Labels": {}}
_VOLUME = {"Name": "vol", "Driver": "local", "Scope": "local", "Mountpoint": "/v", "Labels": {}}
_MEMORY = {"limit": 1 << 30, "usage": 1 << 20, "stats": {"inactive_file": 0}}
_CPU = {"cpu_usage": {"total_usage": 1000}, "online_cpus": 2, "system_cpu_usage": 100000}
_STATS = {
    "id": CONTAINER["Id"],
    "name": "/box",
    "cpu_stats": _CPU,
    "precpu_stats": _CPU,
    "memory_stats": _MEMORY,
}
_DISK = {
    "BuildCache": [],
    "Containers": [_LISTED],
    "Images": [{**_IMAGE, "SharedSize": 0}],
    "LayersSize": 4096,
    "Volumes": [{**_VOLUME, "UsageData": {"RefCount": 0, "Size": 10}}],
}

_FOLDER = b64encode(
    json.dumps({"name": "/", "size": 0, "mode": 1 << 31 | 0o755, "linkTarget": ""}).encode()
).decode()

ANSWERS: dict[str, Any] = {
    "GET /containers/box/json": CONTAINER,
    f"GET /containers/{CONTAINER['Id']}/json": CONTAINER,
    "GET /containers/open/json": {**CONTAINER, "Config": {**CONTAINER["Config"], "OpenStdin": True}},
    "GET /containers/json": [_LISTED],
    "GET /events": {"Type": "container", "Action": "start", "Actor": {"ID": "5" * 64}, "timeNano": 1},
    "POST /containers/create": {"Id": CONTAINER["Id"], "Warnings": []},
    "POST /containers/box/exec": {"Id": "3" * 64},
    "GET /containers/box/export": {},
    "HEAD /containers/box/archive": f"X-Docker-Container-Path-Stat: {_FOLDER}",
    "PUT /containers/box/archive": {},
    "GET /containers/box/changes": [{"Kind": 0, "Path": "/etc"}],
    "GET /containers/box/stats": _STATS,
    f"GET /containers/{CONTAINER['Id'][:12]}/stats": _STATS,
    "POST /containers/box/update": {"Warnings": []},
    "POST /containers/prune": {"ContainersDeleted": [CONTAINER["Id"]], "SpaceReclaimed": 1},
    "POST /commit": {"Id": "sha256:" + "4" * 64},
    "GET /images/json": [_IMAGE],
    "GET /images/busybox/json": {"Id": CONTAINER["Image"]},
    "GET /images/busybox/history": [_STEP],
    "DELETE /images/busybox": [{"Untagged": "busybox:latest"}],
    "GET /images/get": {},
    "POST /images/load": {"stream": "Loaded image: busybox:latest\n"},
    "POST /images/create": {"status": "sha256:1"},
    "POST /images/busybox/push": {"status": "Pushed", "id": "0123456789ab"},
    "GET /images/search": [{"name": "found", "description": "A description that is too long " * 3}],
    "POST /auth": {"Status": "Login Succeeded", "IdentityToken": ""},
    "POST /images/prune": {"ImagesDeleted": [], "SpaceReclaimed": 1},
    "DELETE /networks/gone": 404,
    "GET /networks": [_NETWORK],
    "GET /networks/net": _NETWORK,
    "POST /networks/create": {"Id": "2" * 64},
    "POST /networks/prune": {"NetworksDeleted": ["net"]},
    "GET /volumes": {"Volumes": [_VOLUME]},
    "GET /volumes/vol": _VOLUME,
    "POST /volumes/create": _VOLUME,
    "POST /volumes/prune": {"VolumesDeleted": ["vol"], "SpaceReclaimed": 1},
    "GET /system/df": _DISK,
    "POST /build/session": 404,  # an engine that is asked for all flags of the classic build
    "POST /build": {"aux": {"ID": "sha256:" + "5" * 64}},
    "POST /build/prune": {"CachesDeleted": [], "SpaceReclaimed": 0},
    "GET /version": {"Version": "1", "ApiVersion": "1.50", "Components": []},
    "GET /info": {"ID": "x", "Containers": 1, "Name": "host"},
}

FILES = {
    "Dockerfile": "FROM busybox\n",
    "Other": "FROM scratch\n",
    "file.env": "A=1\n",
    "file.labels": "b=2\n",
    "image.tar": "not one",
    "profile.json": "{}",
}

BASE: dict[str, list[str]] = {
    "attach": ["open"],
    "build": ["."],
    "commit": ["box"],
    "container inspect": ["box"],
    "context create": ["made"],
    "context inspect": ["kept"],
    "context rm": ["nowhere"],
    "context update": ["kept"],
    "cp": ["link", "box:/"],
    "create": ["busybox"],
    "exec": ["box", "true"],
    "export": ["box"],
    "history": ["busybox"],
    "image inspect": ["busybox"],
    "import": ["image.tar"],
    "inspect": ["box"],
    "kill": ["box"],
    "login": ["registry.test"],
    "logs": ["box"],
    "manifest annotate": ["registry.test/list", "registry.test/list:one"],
    "manifest create": ["registry.test/list", "registry.test/list:one"],
    "manifest inspect": ["registry.test/list"],
    "manifest push": ["registry.test/list"],
    "manifest rm": ["registry.test/list"],
    "network connect": ["net", "box"],
    "network create": ["made"],
    "network disconnect": ["net", "box"],
    "network inspect": ["net"],
    "network rm": ["gone"],
    "pull": ["busybox"],
    "push": ["busybox"],
    "restart": ["box"],
    "rm": ["box"],
    "rmi": ["busybox"],
    "run": ["busybox"],
    "save": ["busybox"],
    "search": ["thing"],
    "start": ["box"],
    "stop": ["box"],
    "update": ["box"],
    "volume inspect": ["vol"],
    "volume rm": ["vol"],
}
"""Arguments with which a command runs; none for those that are not here."""

ALWAYS: dict[str, list[str]] = {
    "builder prune": ["--force"],
    "container prune": ["--force"],
    "image prune": ["--force"],
    "network prune": ["--force"],
    "system prune": ["--force"],
    "volume prune": ["--force"],
    "stats": ["--no-stream"],
}
"""Flags without which the others mean nothing: they ask first, or go on for ever."""

ALSO: dict[tuple[str, str], list[str]] = {
    ("create", "quiet"): ["--pull", "always"],
    ("login", "username"): ["--password", "x"],
    ("run", "quiet"): ["--pull", "always"],
    ("start", "detach-keys"): ["--attach", "--interactive"],
    ("network create", "aux-address"): ["--subnet", "10.9.0.0/16"],
    ("network create", "gateway"): ["--subnet", "10.9.0.0/16"],
    ("network create", "ip-range"): ["--subnet", "10.9.0.0/16"],
}
"""Further flags without which one flag means nothing."""

SAMPLES: dict[str, str] = {
    "bytes": "64m",
    "decimal": "0.5",
    "device": "/dev/null",
    "device-rule": "c 1:3 rwm",
    "dns": "10.0.0.1",
    "dns-search": "example.org",
    "duration": "7s",
    "env": "A=1",
    "filter": "label=x",
    "gpu-request": "all",
    "image-name": "name:tag",
    "host-list": "db:10.0.0.5",
    "int": "7",
    "key": "x",
    "link": "box:other",
    "label": "a=1",
    "list": "x",
    "map": "a=1",
    "mount": "type=tmpfs,target=/t",
    "network": "net",
    "string": "x",
    "stringToString": "host=unix:///elsewhere",
    "strings": "x",
    "swap": "128m",
    "sysctl": "net.ipv4.ip_forward=1",
    "throttle-bps": "/dev/null:1mb",
    "throttle-iops": "/dev/null:7",
    "uint": "7",
    "uint16": "70",
    "ulimit": "nofile=7",
    "volume": "/v",
    "attach": "stderr",
    "weight-device": "/dev/null:70",
}
"""A value of each kind of flag."""

VALUES: dict[str, str] = {
    "arch": "arm64",
    "aux-address": "x=10.9.0.7",
    "cidfile": "made.cid",
    "env-file": "file.env",
    "expose": "80",
    "file": "Other",
    "format": "{{json .}}",
    "gateway": "10.9.0.1",
    "input": "image.tar",
    "ip-range": "10.9.1.0/24",
    "label-file": "file.labels",
    "log-opt": "max-size=1m",
    "mac-address": "92:d0:c6:0a:29:33",
    "output": "made.tar",
    "platform": "linux/arm64",
    "pull": "always",
    "restart": "always",
    "security-opt": "no-new-privileges",
    "signal": "HUP",
    "storage-opt": "size=1g",
    "subnet": "10.9.0.0/16",
    "type": "image",
    "ip": "10.9.0.7",
    "ip6": "fd00::7",
    "ipc": "host",
    "link-local-ip": "169.254.7.7",
    "pid": "host",
    "uts": "host",
    "userns": "host",
    "cgroupns": "host",
    "isolation": "default",
    "change": "CMD true",
    "runtime": "runc",
    "tmpfs": "/t",
    "volumes-from": "box",
    "from": "kept",
}
"""Values of flags that take no value of their kind, by long name."""

ELSEWHERE: dict[tuple[str, str], str] = {
    ("attach", "sig-proxy"): "tests/e2e/test_sig_proxy.py::test_attach_keeps_signals_to_itself",
    ("cp", "quiet"): "tests/commands/test_table.py::test_progress_of_a_copy_is_for_terminals",
    ("load", "quiet"): "tests/commands/test_table.py::test_load_at_a_terminal_shows_progress",
    **{
        (f"manifest {verb}", flag): "tests/e2e/test_manifests.py::test_both_clients_say_and_keep_the_same"
        for verb, flag in (
            *(("create", "insecure"), ("inspect", "insecure"), ("push", "insecure"), ("push", "purge")),
        )
    },
    ("run", "sig-proxy"): "tests/e2e/test_sig_proxy.py::test_run_keeps_signals_to_itself",
}
"""Flags whose effect this cannot see, and the test that shows it (``path::function``)."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a command did."""

    code: int
    requests: str
    said: str
    files: str


class Bench:
    """Runs commands against the recorder, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._recorder = Recorder(folder / "socket", ANSWERS)
        self.host = f"unix://{folder}/socket"

    def close(self) -> None:
        """Stop the daemon."""
        self._recorder.close()

    def run(self, words: list[str]) -> Effect:
        """What ``sampan WORDS`` does in a fresh folder of files."""
        place = self._folder / "work"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for name, text in FILES.items():
            (place / name).write_text(text)
        (place / "link").symlink_to("image.tar")
        here = os.getcwd()
        os.chdir(place)
        self._recorder.requests.clear()
        try:
            os.environ.update(HOME=str(place), SAMPAN_HOST=self.host)
            with _Captured(place / "out", place / "err"):
                _context()
                _manifest_list()
                try:
                    code = _limited(words)
                except TimeoutError:
                    code = GOES_ON
            said = (place / "out").read_text(errors="replace") + (place / "err").read_text(errors="replace")
            # Some are sent side by side: their order says nothing.
            asked = sorted(json.dumps(request, sort_keys=True) for request in self._recorder.requests)
            requests = f"[{', '.join(asked)}]"
            return Effect(code, requests, said, _left(place))
        finally:
            os.chdir(here)


def _context() -> None:
    """The context "kept"."""
    from sampan.cli.contextstore import save

    save({"Name": "kept", "Metadata": {}, "Endpoints": {"docker": {"Host": "unix:///kept"}}})


def _manifest_list() -> None:
    """The list registry.test/list of one manifest."""
    from sampan.cli import manifeststore
    from sampan.spec import reference

    raw = b'{"schemaVersion":2,"config":{"digest":"sha256:' + b"6" * 64 + b'","size":2},"layers":[]}'
    kept = {"mediaType": manifeststore.OCI_MANIFEST, "digest": "sha256:" + "7" * 64, "size": len(raw)}
    target, one = (reference.parse(f"registry.test/list:{tag}") for tag in ("latest", "one"))
    platform = {"architecture": "amd64", "os": "linux"}
    manifeststore.save(target, one, manifeststore.Entry(one.canonical, {**kept, "platform": platform}, raw))


def _left(place: Path) -> str:
    """The files in the folder with their sizes, and contexts and manifests with their content."""
    found = []
    for path in sorted(place.rglob("*")):
        if path.is_file() and path.name not in ("out", "err"):
            told = path.name == "meta.json" or "manifests" in path.parts
            text = path.read_text(errors="replace") if told else path.stat().st_size
            found.append(f"{path.relative_to(place)}: {text}")
    return "\n".join(found)


class _Captured:
    def __init__(self, out: Path, err: Path) -> None:
        self._paths = (out, err)

    def __enter__(self) -> None:
        self._kept = [os.dup(fd) for fd in (0, 1, 2)]
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        for fd, path in zip((1, 2), self._paths, strict=True):
            new = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(new, fd)
            os.close(new)

    def __exit__(self, *_: object) -> None:
        for fd, kept in enumerate(self._kept):
            os.dup2(kept, fd)
            os.close(kept)


def _limited(words: list[str]) -> int:
    def ring(_number: int, _frame: object) -> None:
        raise TimeoutError(f"sampan {' '.join(words)} does not end")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        return main(words)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def trial(words: str, flag: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The command lines to compare: without the flag and with it."""
    name, kind = flag[1], flag[2]
    always = [one for one in ALWAYS.get(words, []) if one != f"--{name}"]
    head = [*words.split(), *always, *ALSO.get((words, name), [])]
    tail = BASE.get(words, [])
    if kind == "bool":
        other = "false" if len(flag) > 4 and flag[4] == "true" else "true"
        given = f"--{name}={other}"
    else:
        given = f"--{name}={VALUES.get(name, SAMPLES[kind])}"
    return [*head, *tail], [*head, given, *tail]


def effects(
    bench: Bench, words: str, flags: Iterator[tuple[str, ...]]
) -> Iterator[tuple[str, Effect, Effect]]:
    """Of each flag: its name, what the command does without it, and with it."""
    known: dict[str, Effect] = {}
    for flag in flags:
        without, with_it = trial(words, flag)
        key = " ".join(without)
        if key not in known:
            known[key] = bench.run(without)
        yield flag[1], known[key], bench.run(with_it)
