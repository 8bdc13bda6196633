"""Options of ``create`` and ``run`` to the body of POST /containers/create.

The document starts as what Docker's own client sends for no flags; each given flag then changes its place.
Plain flags are rows of a table; those with a syntax have a function, whose module loads only when the flag
is used. What only the daemon can judge (names, modes, limits) is left to the daemon.
"""

from __future__ import annotations

from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.command import Options

    Document = dict[str, Any]

_CONFIG = (
    ("hostname", "Hostname"),
    ("domainname", "Domainname"),
    ("user", "User"),
    ("tty", "Tty"),
    ("interactive", "OpenStdin"),
    ("workdir", "WorkingDir"),
)

_HOST = (
    ("blkio-weight", "BlkioWeight"),
    ("blkio-weight-device", "BlkioWeightDevice"),
    ("cgroup-parent", "CgroupParent"),
    ("cgroupns", "CgroupnsMode"),
    ("cidfile", "ContainerIDFile"),
    ("cpu-count", "CpuCount"),
    ("cpu-percent", "CpuPercent"),
    ("cpu-period", "CpuPeriod"),
    ("cpu-quota", "CpuQuota"),
    ("cpu-rt-period", "CpuRealtimePeriod"),
    ("cpu-rt-runtime", "CpuRealtimeRuntime"),
    ("cpu-shares", "CpuShares"),
    ("cpus", "NanoCpus"),
    ("cpuset-cpus", "CpusetCpus"),
    ("cpuset-mems", "CpusetMems"),
    ("device-cgroup-rule", "DeviceCgroupRules"),
    ("device-read-bps", "BlkioDeviceReadBps"),
    ("device-read-iops", "BlkioDeviceReadIOps"),
    ("device-write-bps", "BlkioDeviceWriteBps"),
    ("device-write-iops", "BlkioDeviceWriteIOps"),
    ("dns", "Dns"),
    ("dns-option", "DnsOptions"),
    ("dns-search", "DnsSearch"),
    ("add-host", "ExtraHosts"),
    ("group-add", "GroupAdd"),
    ("init", "Init"),
    ("io-maxbandwidth", "IOMaximumBandwidth"),
    ("io-maxiops", "IOMaximumIOps"),
    ("ipc", "IpcMode"),
    ("isolation", "Isolation"),
    ("kernel-memory", "KernelMemory"),
    ("link", "Links"),
    ("memory", "Memory"),
    ("memory-reservation", "MemoryReservation"),
    ("memory-swap", "MemorySwap"),
    ("memory-swappiness", "MemorySwappiness"),
    ("mount", "Mounts"),
    ("oom-kill-disable", "OomKillDisable"),
    ("oom-score-adj", "OomScoreAdj"),
    ("pid", "PidMode"),
    ("pids-limit", "PidsLimit"),
    ("privileged", "Privileged"),
    ("publish-all", "PublishAllPorts"),
    ("read-only", "ReadonlyRootfs"),
    ("rm", "AutoRemove"),
    ("runtime", "Runtime"),
    ("shm-size", "ShmSize"),
    ("userns", "UsernsMode"),
    ("uts", "UTSMode"),
    ("volume-driver", "VolumeDriver"),
    ("volumes-from", "VolumesFrom"),
)


def _defaults(image: str, command: list[str] | None) -> Document:
    return {
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": None,
        "Cmd": command,
        "Image": image,
        "Volumes": {},
        "WorkingDir": "",
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": {},
        "HostConfig": {
            "Binds": None,
            "ContainerIDFile": "",
            "LogConfig": {"Type": "", "Config": {}},
            "NetworkMode": "default",
            "PortBindings": {},
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "AutoRemove": False,
            "VolumeDriver": "",
            "VolumesFrom": None,
            "ConsoleSize": [0, 0],
            "CapAdd": None,
            "CapDrop": None,
            "CgroupnsMode": "",
            "Dns": [],
            "DnsOptions": [],
            "DnsSearch": [],
            "ExtraHosts": None,
            "GroupAdd": None,
            "IpcMode": "",
            "Cgroup": "",
            "Links": None,
            "OomScoreAdj": 0,
            "PidMode": "",
            "Privileged": False,
            "PublishAllPorts": False,
            "ReadonlyRootfs": False,
            "SecurityOpt": None,
            "UTSMode": "",
            "UsernsMode": "",
            "ShmSize": 0,
            "Isolation": "",
            "CpuShares": 0,
            "Memory": 0,
            "NanoCpus": 0,
            "CgroupParent": "",
            "BlkioWeight": 0,
            "BlkioWeightDevice": [],
            "BlkioDeviceReadBps": [],
            "BlkioDeviceWriteBps": [],
            "BlkioDeviceReadIOps": [],
            "BlkioDeviceWriteIOps": [],
            "CpuPeriod": 0,
            "CpuQuota": 0,
            "CpuRealtimePeriod": 0,
            "CpuRealtimeRuntime": 0,
            "CpusetCpus": "",
            "CpusetMems": "",
            "Devices": [],
            "DeviceCgroupRules": None,
            "DeviceRequests": None,
            "MemoryReservation": 0,
            "MemorySwap": 0,
            "MemorySwappiness": -1,
            "OomKillDisable": False,
            "PidsLimit": 0,
            "Ulimits": [],
            "CpuCount": 0,
            "CpuPercent": 0,
            "IOMaximumIOps": 0,
            "IOMaximumBandwidth": 0,
            "MaskedPaths": None,
            "ReadonlyPaths": None,
        },
        "NetworkingConfig": {"EndpointsConfig": {}},
    }


def attached(options: Options) -> tuple[bool, bool, bool]:
    """Which of stdin, stdout and stderr the container's creator is attached to."""
    streams = options["attach"]
    stdin = "stdin" in streams or options["interactive"]
    if not streams:
        return stdin, True, True
    return stdin, "stdout" in streams, "stderr" in streams


def build(
    options: Options, image: str, command: list[str], streams: tuple[bool, bool, bool], *, socket: str
) -> Document:
    """The body. ``streams``: which of stdin, stdout and stderr are attached; ``socket``: the daemon's own,
    for --use-api-socket. Raises Failure in Docker's words.
    """
    body = _defaults(image, command or None)
    host = body["HostConfig"]
    given = options.given
    for flag, key in _CONFIG:
        if flag in given:
            body[key] = options[flag]
    for flag, key in _HOST:
        if flag in given:
            value = options[flag]
            host[key] = list(value) if isinstance(value, list) else value
    body["AttachStdin"], body["AttachStdout"], body["AttachStderr"] = streams
    body["StdinOnce"] = body["OpenStdin"] and body["AttachStdin"]
    for flag, change in _CHANGES:
        if flag in given:
            try:
                change(options, body)
            except ValueError as error:
                raise Failure(str(error)) from error
    if options["rm"] and host["RestartPolicy"]["Name"] not in ("no", ""):
        raise Failure("conflicting options: cannot specify both --restart and --rm")
    if options["use-api-socket"]:
        bind = {"Type": "bind", "Source": socket, "Target": "/var/run/docker.sock", "BindOptions": {}}
        host.setdefault("Mounts", []).append(bind)
    try:
        _networks(options, body)
    except ValueError as error:
        raise Failure(str(error)) from error
    return body


def _swappiness(options: Options, _body: Document) -> None:
    value = options["memory-swappiness"]
    if not -1 <= value <= 100:
        raise ValueError(f"invalid value: {value}. Valid memory swappiness range is 0-100")


def _volumes(options: Options, body: Document) -> None:
    from sampan.cli.mounts import volumes

    binds, anonymous = volumes(options["volume"])
    body["Volumes"] = anonymous
    body["HostConfig"]["Binds"] = binds or None


def _tmpfs(options: Options, body: Document) -> None:
    parts = (text.partition(":") for text in options["tmpfs"])
    body["HostConfig"]["Tmpfs"] = {path: flags for path, _, flags in parts}


def _capabilities(flag: str, key: str) -> Any:
    def change(options: Options, body: Document) -> None:
        names = {text.strip().upper() for text in options[flag]}
        full = {name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}" for name in names}
        body["HostConfig"][key] = sorted(full)

    return change


def _entrypoint(options: Options, body: Document) -> None:
    body["Entrypoint"] = [options["entrypoint"]]  # empty: the image's entry point is dropped


def _ports(options: Options, body: Document) -> None:
    from sampan.cli.ports import published

    ports, body["HostConfig"]["PortBindings"] = published(options["publish"], options["expose"])
    if ports:
        body["ExposedPorts"] = ports


def _devices(options: Options, body: Document) -> None:
    from sampan.cli.devices import is_cdi, mapped

    host = body["HostConfig"]
    names = [text for text in options["device"] if is_cdi(text)]
    host["Devices"] = [mapped(text) for text in options["device"] if not is_cdi(text)]
    if names:
        request = {"Driver": "cdi", "Count": 0, "DeviceIDs": names, "Capabilities": None, "Options": None}
        host["DeviceRequests"] = [*(host["DeviceRequests"] or ()), request]


def _gpus(options: Options, body: Document) -> None:
    host = body["HostConfig"]
    host["DeviceRequests"] = [*options["gpus"], *(host["DeviceRequests"] or ())]


def _environment(options: Options, body: Document) -> None:
    from sampan.cli.labels import environment

    body["Env"] = environment(options["env-file"], options["env"])


def _labels(options: Options, body: Document) -> None:
    from sampan.cli.labels import labels

    body["Labels"] = labels(options["label-file"], options["label"])


def _mode(flag: str, name: str, allowed: tuple[str, ...]) -> Any:
    def check(options: Options, _body: Document) -> None:
        mode = options[flag]
        joined = flag == "pid" and mode.startswith("container:") and len(mode) > len("container:")
        if mode not in allowed and not joined:
            raise ValueError(f"--{flag}: invalid {name} mode")

    return check


def _restart(options: Options, body: Document) -> None:
    from sampan.cli.limits import restart_policy

    body["HostConfig"]["RestartPolicy"] = restart_policy(options["restart"])


def _logging(options: Options, body: Document) -> None:
    driver = options["log-driver"]
    parts = (text.partition("=") for text in options["log-opt"])
    config = {key: value for key, _, value in parts}
    if driver == "none" and config:
        raise ValueError("invalid logging opts for driver none")
    body["HostConfig"]["LogConfig"] = {"Type": driver, "Config": config}


def _security(options: Options, body: Document) -> None:
    from sampan.cli.security import security_options

    host = body["HostConfig"]
    host["SecurityOpt"], unconfined = security_options(options["security-opt"])
    if unconfined:
        host["MaskedPaths"] = host["ReadonlyPaths"] = []


def _storage(options: Options, body: Document) -> None:
    found = {}
    for text in options["storage-opt"]:
        key, sign, value = text.partition("=")
        if not sign:
            raise ValueError("invalid storage option")
        found[key] = value
    body["HostConfig"]["StorageOpt"] = found


def _ulimits(options: Options, body: Document) -> None:
    named = {limit["Name"]: limit for limit in options["ulimit"]}
    body["HostConfig"]["Ulimits"] = [named[name] for name in sorted(named)]


def _mapping(flag: str, key: str) -> Any:
    def change(options: Options, body: Document) -> None:
        body["HostConfig"][key] = dict(options[flag])

    return change


def _stop(options: Options, body: Document) -> None:
    if options["stop-signal"]:
        body["StopSignal"] = options["stop-signal"]
    if "stop-timeout" in options.given:
        body["StopTimeout"] = options["stop-timeout"]


def _kernel_memory(_options: Options, body: Document) -> None:
    body["HostConfig"].pop("KernelMemory", None)  # API 1.42 and later have no such field


def _timeout(options: Options, body: Document) -> None:
    from sampan.wire.durations import shown

    limit = options["timeout"]
    if limit < 0:
        raise ValueError("--timeout cannot be negative")
    if limit:
        annotations = body["HostConfig"].setdefault("Annotations", {})
        annotations["io.sampan.timeout"] = shown(limit)


def _egress(options: Options, body: Document) -> None:
    body["HostConfig"].setdefault("Annotations", {})["io.sampan.egress"] = " ".join(options["egress"])


_HEALTH = (
    ("health-interval", "Interval"),
    ("health-timeout", "Timeout"),
    ("health-start-period", "StartPeriod"),
    ("health-start-interval", "StartInterval"),
    ("health-retries", "Retries"),
)


def _health(options: Options, body: Document) -> None:
    check: Document = {}
    if options["health-cmd"]:
        check["Test"] = ["CMD-SHELL", options["health-cmd"]]
    for flag, key in _HEALTH:
        value = options[flag]
        if value < 0:
            raise ValueError(f"--{flag} cannot be negative")
        if value:
            check[key] = value
    if options["no-healthcheck"]:
        if check:
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        check["Test"] = ["NONE"]
    if check:
        body["Healthcheck"] = check


def _mac(options: Options, _body: Document) -> None:
    from sampan.cli.endpoints import mac

    if options["mac-address"]:
        mac(options["mac-address"].strip())


_CHANGES = (
    ("mac-address", _mac),
    ("memory-swappiness", _swappiness),
    ("volume", _volumes),
    ("tmpfs", _tmpfs),
    ("cap-add", _capabilities("cap-add", "CapAdd")),
    ("cap-drop", _capabilities("cap-drop", "CapDrop")),
    ("entrypoint", _entrypoint),
    ("publish", _ports),
    ("expose", _ports),
    ("device", _devices),
    ("gpus", _gpus),
    ("env", _environment),
    ("env-file", _environment),
    ("label", _labels),
    ("label-file", _labels),
    ("pid", _mode("pid", "PID", ("", "host"))),
    ("uts", _mode("uts", "UTS", ("", "host"))),
    ("userns", _mode("userns", "USER", ("", "host", "private"))),
    ("cgroupns", _mode("cgroupns", "CGROUP", ("", "host", "private"))),
    ("restart", _restart),
    ("log-driver", _logging),
    ("log-opt", _logging),
    ("security-opt", _security),
    ("storage-opt", _storage),
    ("no-healthcheck", _health),
    ("health-cmd", _health),
    *((flag, _health) for flag, _ in _HEALTH),
    ("ulimit", _ulimits),
    ("annotation", _mapping("annotation", "Annotations")),
    ("timeout", _timeout),
    ("egress", _egress),
    ("sysctl", _mapping("sysctl", "Sysctls")),
    ("stop-signal", _stop),
    ("stop-timeout", _stop),
    ("kernel-memory", _kernel_memory),
)

_NETWORK_FLAGS = (
    "network",
    "net",
    "network-alias",
    "net-alias",
    "link",
    "ip",
    "ip6",
    "mac-address",
    "link-local-ip",
)


def _networks(options: Options, body: Document) -> None:
    """``NetworkMode``, which the first network decides, and the settings of each network."""
    networks: list[Document] = [{"name": "default"}]
    if not options.given.isdisjoint(_NETWORK_FLAGS):
        from sampan.cli.endpoints import joined

        networks = joined(options)
    body["HostConfig"]["NetworkMode"] = networks[0]["name"]
    settings = body["NetworkingConfig"]["EndpointsConfig"]
    for network in networks:
        name = network["name"]
        if name in settings:
            raise ValueError(f'network "{name}" is specified multiple times')
        if name != "host" and not name.startswith("container:"):
            settings[name] = endpoint(network)


def endpoint(found: Document) -> Document:
    """The API's EndpointSettings of one network, of which only the fields that are set need be there."""
    ipam: Document = {}
    if found.get("ip"):
        ipam["IPv4Address"] = found["ip"]
    if found.get("ip6"):
        ipam["IPv6Address"] = found["ip6"]
    if found.get("link-local"):
        ipam["LinkLocalIPs"] = found["link-local"]
    return {
        "IPAMConfig": ipam or None,
        "Links": found.get("links") or None,
        "Aliases": found.get("aliases") or None,
        "MacAddress": found.get("mac", ""),
        "DriverOpts": found.get("options") or None,
        "GwPriority": found.get("priority", 0),
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }
