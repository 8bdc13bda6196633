"""The daemon's settings as one table: each is a flag of the command line and a key of ``daemon.json``.

Keys and flags are dockerd's where they mean the same. Laws: a setting is given in one of the two places; a
key that means nothing to anybody is an error; one that dockerd knows and this engine has no use for is passed
over with a warning that says why, unless passing it over would leave the host less protected than was asked.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class Kind(enum.Enum):
    """A value: text, yes or no, a whole number, bytes ("64m"), texts, texts or lists by name, and so on."""

    TEXT = enum.auto()
    SWITCH = enum.auto()
    NUMBER = enum.auto()
    SIZE = enum.auto()
    LIST = enum.auto()
    MAP = enum.auto()
    LISTS = enum.auto()
    ULIMITS = enum.auto()
    RUNTIMES = enum.auto()
    BUILDER = enum.auto()


MANY = frozenset({Kind.LIST, Kind.MAP, Kind.ULIMITS, Kind.RUNTIMES})


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    """One setting. ``live``: a change of it is taken up on SIGHUP; any other needs a new daemon.

    ``flags`` is empty for one that only the file has, ``choices`` for one with any value.
    """

    key: str
    flags: tuple[str, ...]
    kind: Kind
    default: Any
    words: str
    metavar: str
    choices: tuple[str, ...]
    live: bool


LEVELS = ("debug", "info", "warn", "error", "fatal")


_Row = tuple[str, str, Kind, Any, str, str] | tuple[str, str, Kind, Any, str, str, tuple[str, ...]]


def _rows(*rows: _Row, live: bool) -> tuple[Directive, ...]:
    return tuple(
        Directive(
            key=row[0],
            flags=tuple(row[1].split()),
            kind=row[2],
            default=row[3],
            words=row[4],
            metavar=row[5],
            choices=row[6] if len(row) == 7 else (),
            live=live,
        )
        for row in rows
    )


TABLE = (
    *_rows(
        (
            "hosts",
            "-H --host",
            Kind.LIST,
            (),
            "socket to listen on (repeatable); fd:// for systemd's",
            "LIST",
        ),
        (
            "data-root",
            "-g --data-root --graph",
            Kind.TEXT,
            "/var/lib/sampan",
            "directory of what is kept",
            "DIR",
        ),
        ("exec-root", "--exec-root", Kind.TEXT, "/run/sampan", "directory of what runs", "DIR"),
        ("pidfile", "-p --pidfile", Kind.TEXT, "", "file for the daemon's pid", "FILE"),
        (
            "read-only-hosts",
            "--read-only-host",
            Kind.LIST,
            (),
            "socket on which nothing can be changed (repeatable)",
            "LIST",
        ),
        (
            "confined-hosts",
            "--confined-host",
            Kind.MAP,
            {},
            "socket for a group, which has its own containers there and no rights on the host (repeatable)",
            "ADDRESS=GROUP",
        ),
        (
            "confined-limits",
            "--confined-limit",
            Kind.MAP,
            {},
            "most that a group has at once: containers, volumes, networks, memory, cpus, pids (repeatable)",
            "GROUP=NAME=N,…",
        ),
        ("tls", "--tls", Kind.SWITCH, None, "TLS on tcp:// addresses; false: none, for all the world", ""),
        ("tlsverify", "--tlsverify", Kind.SWITCH, None, "TLS, and only for clients with a certificate", ""),
        ("tlscacert", "--tlscacert", Kind.TEXT, "", "authority of clients' certificates", "FILE"),
        ("tlscert", "--tlscert", Kind.TEXT, "", "the engine's certificate", "FILE"),
        ("tlskey", "--tlskey", Kind.TEXT, "", "its key", "FILE"),
        (
            "metrics-addr",
            "--metrics-addr",
            Kind.TEXT,
            "",
            "address of /metrics for Prometheus, without TLS",
            "HOST:PORT",
        ),
        ("bip", "--bip", Kind.TEXT, "", "the default bridge's IPv4 address", "CIDR"),
        ("fixed-cidr", "--fixed-cidr", Kind.TEXT, "", "part of its subnet for containers", "CIDR"),
        ("ipv6", "--ipv6", Kind.SWITCH, False, "IPv6 on the default bridge", ""),
        (
            "fixed-cidr-v6",
            "--fixed-cidr-v6",
            Kind.TEXT,
            "",
            "its IPv6 subnet; one of the engine's own (fd00::/8) if empty",
            "CIDR",
        ),
        ("mtu", "--mtu", Kind.NUMBER, 0, "its MTU; 0: the way out's", "BYTES"),
        ("icc", "--icc", Kind.SWITCH, True, "containers on the default bridge reach each other", ""),
        ("ip-masq", "--ip-masq", Kind.SWITCH, True, "they leave under the host's address", ""),
        (
            "published-ports",
            "--published-ports",
            Kind.TEXT,
            "obey",
            "whether published ports obey the host's forward rules, or bypass them as dockerd's",
            "",
            ("obey", "bypass"),
        ),
        (
            "authorization-plugins",
            "--authorization-plugin",
            Kind.LIST,
            (),
            "plugin that has to allow every request (repeatable)",
            "NAME",
        ),
        ("audit-log", "--audit-log", Kind.TEXT, "", "who changed what: a line of JSON a request", "FILE"),
        ("log-format", "--log-format", Kind.TEXT, "text", "form of the engine's log", "", ("text", "json")),
        ("group", "-G --group", Kind.TEXT, "", "group that may use the socket", "NAME"),
        (
            "cgroup-parent",
            "--cgroup-parent",
            Kind.TEXT,
            "",
            "cgroup that containers' groups are made in",
            "PATH",
        ),
        ("oom-score-adjust", "--oom-score-adjust", Kind.NUMBER, -500, "the engine's OOM score", "N"),
        (
            "storage-driver",
            "-s --storage-driver",
            Kind.TEXT,
            "",
            "overlay2, btrfs, fuse-overlayfs or vfs; the first that works here",
            "NAME",
        ),
        (
            "layer-size-limit",
            "--layer-size-limit",
            Kind.SIZE,
            0,
            "most that one layer may hold; 0: any",
            "SIZE",
        ),
        (
            "layer-entries-limit",
            "--layer-entries-limit",
            Kind.NUMBER,
            0,
            "most files that one layer may hold; 0: any",
            "N",
        ),
        (
            "layer-ratio-limit",
            "--layer-ratio-limit",
            Kind.NUMBER,
            0,
            "how many times as large as its archive a layer may be; 0: any",
            "N",
        ),
        (
            "drop-compressed-blobs",
            "--drop-compressed-blobs",
            Kind.SWITCH,
            False,
            "drop layers' archives that can be made again; pushes have other digests then",
            "",
        ),
        live=False,
    ),
    *_rows(
        (
            "userns",
            "--userns",
            Kind.TEXT,
            "private",
            "containers' default user namespace",
            "",
            ("private", "host"),
        ),
        (
            "userns-fallback",
            "--userns-fallback",
            Kind.TEXT,
            "allow",
            "whether a container that needs the host's user ids gets them",
            "",
            ("allow", "deny"),
        ),
        (
            "default-runtime",
            "--default-runtime",
            Kind.TEXT,
            "",
            "runtime of containers that choose none",
            "NAME",
        ),
        ("runtimes", "--add-runtime", Kind.RUNTIMES, {}, "another OCI runtime (repeatable)", "NAME=PATH"),
        (
            "builder",
            "--build-cache-limit",
            Kind.BUILDER,
            None,
            "size to which the build cache is kept; 0: none; in the file gc.defaultKeepStorage",
            "SIZE",
        ),
        (
            "low-disk-warning",
            "--low-disk-warning",
            Kind.SIZE,
            None,
            "free space below which the engine warns; 1g, or a twentieth of a smaller disk",
            "SIZE",
        ),
        (
            "low-disk-reserve",
            "--low-disk-reserve",
            Kind.SIZE,
            None,
            "free space that pulls, builds and creations leave; 64m, or a fiftieth of a smaller disk",
            "SIZE",
        ),
        ("dns", "--dns", Kind.LIST, (), "resolver of containers (repeatable)", "ADDRESS"),
        ("dns-opts", "--dns-opt", Kind.LIST, (), "resolver option of containers (repeatable)", "OPTION"),
        ("dns-search", "--dns-search", Kind.LIST, (), "search domain (repeatable)", "DOMAIN"),
        ("registry-mirrors", "--registry-mirror", Kind.LIST, (), "mirror of Docker Hub (repeatable)", "URL"),
        ("mirrors", "", Kind.LISTS, {}, "mirrors of any registry, by its host", ""),
        (
            "insecure-registries",
            "--insecure-registry",
            Kind.LIST,
            (),
            "registry that may do without verified TLS (repeatable)",
            "HOST|CIDR",
        ),
        (
            "max-concurrent-downloads",
            "--max-concurrent-downloads",
            Kind.NUMBER,
            3,
            "layers of a pull at once",
            "N",
        ),
        (
            "max-concurrent-uploads",
            "--max-concurrent-uploads",
            Kind.NUMBER,
            5,
            "layers of a push at once",
            "N",
        ),
        ("init", "--init", Kind.SWITCH, False, "run an init in every container", ""),
        (
            "no-new-privileges",
            "--no-new-privileges",
            Kind.SWITCH,
            False,
            "containers gain no privileges by default",
            "",
        ),
        (
            "seccomp-profile",
            "--seccomp-profile",
            Kind.TEXT,
            "",
            "profile of containers that choose none",
            "FILE",
        ),
        ("default-shm-size", "--default-shm-size", Kind.SIZE, 64 << 20, "size of /dev/shm", "BYTES"),
        (
            "default-ulimits",
            "--default-ulimit",
            Kind.ULIMITS,
            {},
            "limit of every container",
            "NAME=SOFT[:HARD]",
        ),
        ("labels", "--label", Kind.LIST, (), "label of this engine (repeatable)", "KEY=VALUE"),
        ("log-driver", "--log-driver", Kind.TEXT, "json-file", "containers' default log driver", "NAME"),
        ("log-opts", "--log-opt", Kind.MAP, {}, "option of that driver (repeatable)", "KEY=VALUE"),
        ("debug", "-D --debug", Kind.SWITCH, False, "log at level debug", ""),
        ("log-level", "-l --log-level", Kind.TEXT, "info", "least level that is logged", "", LEVELS),
        live=True,
    ),
)

BY_KEY: Mapping[str, Directive] = {directive.key: directive for directive in TABLE}

_NO_NETWORKS = "the networks have no such setting"
_NO_CONTAINERD = "there is no containerd"
_NO_SWARM = "there is no swarm mode"

WITHOUT_EFFECT: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "http-proxy",
            "https-proxy",
            "no-proxy",
            "proxies",
        ),
        "proxies are taken from the environment: HTTP_PROXY, HTTPS_PROXY, NO_PROXY",
    ),
    "allow-nondistributable-artifacts": "foreign layers are neither pulled nor pushed",
    "max-download-attempts": "a download goes on as long as it comes further",
    **dict.fromkeys(
        (
            "bip6",
            "bridge",
            "bridge-accept-fwmark",
            "default-address-pools",
            "default-gateway",
            "default-gateway-v6",
            "default-network-opts",
            "firewall-backend",
            "host-gateway-ip",
            "host-gateway-ips",
            "ip",
            "ip-forward",
            "ip-forward-no-drop",
            "ip6tables",
            "iptables",
            "network-control-plane-mtu",
            "network-diagnostic-port",
            "userland-proxy",
            "userland-proxy-path",
        ),
        _NO_NETWORKS,
    ),
    **dict.fromkeys(("containerd", "containerd-namespace", "containerd-plugin-namespace"), _NO_CONTAINERD),
    **dict.fromkeys(("swarm-default-advertise-addr", "node-generic-resources"), _NO_SWARM),
    "api-cors-header": "the API serves no browsers",
    "cdi-spec-dirs": "CDI files are looked for in /etc/cdi and /var/run/cdi",
    "cpu-rt-period": "groups are given real-time shares one by one",
    "cpu-rt-runtime": "groups are given real-time shares one by one",
    "default-cgroupns-mode": "a container asks for the host's cgroup namespace itself",
    "default-ipc-mode": "a container asks for another's IPC itself",
    "exec-opts": "the engine handles cgroups itself",
    "experimental": "nothing is experimental",
    "features": "there are no optional features",
    "init-path": "the engine brings its own init",
    "live-restore": "containers always outlive the daemon",
    "raw-logs": "the log has one format",
    "shutdown-timeout": "containers always outlive the daemon",
    "storage-opts": "the engine chooses how layers are stored",
    "userns-remap": "every container has a user namespace of its own; see userns",
}

AGREED: Mapping[str, tuple[Any, ...]] = {
    # Values that ask for what is so anyway.
    "experimental": (False,),
    "ip-forward": (True,),
    "iptables": (True,),
    "live-restore": (True,),
}

REFUSED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "selinux-enabled": (bool, "this engine does not label files or processes"),
}
