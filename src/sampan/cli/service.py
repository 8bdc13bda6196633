"""``system service``: the engine as a service of systemd, started at boot and by the first client.

Two units: the socket, which belongs to systemd, so that no client ever finds nobody; and the service. Law:
``uninstall`` takes away all that ``install`` made, and nothing else: images, containers and volumes stay.
"""

from __future__ import annotations

import os
import sys

from sampan.cli.command import Command, Options
from sampan.cli.context import Context, err, out
from sampan.errors import Failure

UNITS = "/etc/systemd/system"
PID_FILE = "/run/sampan/sampan.pid"
PATIENCE = 30.0  # seconds for the engine to end
SOCKET = "sampan.socket"
SERVICE = "sampan.service"
_MARK = "# Installed by `sampan system service install`; `sampan system service uninstall` removes it.\n"

_SOCKET_UNIT = """\
[Unit]
Description=Sampan engine's socket

[Socket]
ListenStream=/run/sampan/sampan.sock
SocketMode=0660
SocketUser=root
SocketGroup={group}
DirectoryMode=0711
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""

# Type=notify: what is ordered after it finds it serving. KillMode=process: the engine's other processes hold
# the running containers, which outlive it.
_SERVICE_UNIT = """\
[Unit]
Description=Sampan container engine
After=network-online.target nftables.service
Wants=network-online.target
Requires={socket}

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/sh -c "kill -s HUP $$MAINPID"
Restart=always
RestartSec=2
TimeoutStartSec=0
KillMode=process
Delegate=yes
OOMScoreAdjust=-500
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"""


def _service(_context: Context, options: Options, arguments: list[str]) -> int:
    action, *rest = arguments
    root = options["root"].rstrip("/")
    if action == "install":
        return _install(root, options["group"], rest)
    if rest:
        raise Failure(f"system service {action} takes no daemon options")
    if action == "uninstall":
        return _uninstall(root)
    if action == "show":
        return _show(options["group"])
    raise Failure(f"unknown action {action!r}: use install, uninstall or show")


def _texts(group: str, daemon_options: list[str]) -> dict[str, str]:
    words = [sys.executable, "-P", "-m", "sampan.daemon", "-H", "fd://", *daemon_options]
    return {
        SOCKET: _MARK + _SOCKET_UNIT.format(group=group),
        SERVICE: _MARK + _SERVICE_UNIT.format(socket=SOCKET, command=" ".join(map(_quoted, words))),
    }


def _quoted(word: str) -> str:
    """A word of ExecStart: systemd.service(5) has quotes, specifiers (%) and variables ($)."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if not word or set(word) & set(" \t'\"\\;") else word


def _show(group: str) -> int:
    for name, text in _texts(group, []).items():
        out(f"# {UNITS}/{name}\n{text}")
    return 0


def _install(root: str, group: str, daemon_options: list[str]) -> int:
    _check_group(root, group)
    directory = root + UNITS
    try:
        os.makedirs(directory, exist_ok=True)
        for name, text in _texts(group, daemon_options).items():
            path = f"{directory}/{name}"
            _refuse_foreign(path)
            with open(path + ".new", "w") as file:
                file.write(text)
            os.rename(path + ".new", path)
    except OSError as error:
        raise Failure(f"{error.filename}: {(error.strerror or str(error)).lower()}") from None
    if root:
        return _systemctl("--root", root, "enable", SOCKET, SERVICE)
    code = _systemctl("enable", SOCKET, SERVICE)
    if code:
        return code
    if not _runs():
        err("systemd does not run here: the engine starts with the next boot")
        return 0
    _systemctl("stop", SERVICE, SOCKET)
    _end_on_demand()
    return _systemctl("daemon-reload") or _systemctl("start", SOCKET) or _systemctl("start", SERVICE)


def _end_on_demand() -> None:
    """End the engine that a client started: the service takes its place, and its containers over."""
    try:
        with open(PID_FILE) as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if b"sampan.daemon" not in file.read():
                return
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return
    try:
        import select
        import signal

        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        select.select([pidfd], [], [], PATIENCE)
    except OSError as error:
        raise Failure(f"the engine with pid {pid} cannot be ended: {error.strerror}") from None
    finally:
        os.close(pidfd)


def _uninstall(root: str) -> int:
    directory = root + UNITS
    present = [name for name in (SERVICE, SOCKET) if os.path.lexists(f"{directory}/{name}")]
    if not present:
        raise Failure("the service is not installed")
    for name in present:
        _refuse_foreign(f"{directory}/{name}")
    live = not root and _runs()
    if live:
        _systemctl("stop", *present)
        _systemctl("reset-failed", *present)
    _systemctl(*(("--root", root) if root else ()), "disable", *present)
    for name in present:
        os.unlink(f"{directory}/{name}")
    if live:
        _systemctl("daemon-reload")
    return 0


def _check_group(root: str, group: str) -> None:
    if root or group.isdecimal():
        return
    import grp

    try:
        grp.getgrnam(group)
    except KeyError:
        raise Failure(
            f"group {group} not found: make it by `groupadd --system {group}`; its members rule this machine"
        ) from None


def _refuse_foreign(path: str) -> None:
    """A unit of that name that somebody else wrote stays."""
    try:
        with open(path) as file:
            if not file.read(len(_MARK)).startswith(_MARK[:20]):
                raise Failure(f"{path} was not made by `sampan system service install`: remove it first")
    except FileNotFoundError:
        return


def _runs() -> bool:
    """Whether systemd is this machine's manager; see sd_booted(3)."""
    return os.path.isdir("/run/systemd/system")


def _systemctl(*arguments: str) -> int:
    """Run it, quietly; its exit status. What it complains of is the user's to see."""
    try:
        child = os.posix_spawnp("systemctl", ["systemctl", "--quiet", *arguments], os.environ)
    except FileNotFoundError:
        raise Failure("systemctl not found: this machine has no systemd") from None
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


COMMANDS: tuple[Command, ...] = (
    Command(
        "system service",
        "[OPTIONS] install|uninstall|show [-- DAEMON_OPTION...]",
        "Run the engine as a service of systemd",
        _service,
        flags=(
            ("", "group", "string", "Group that may use the socket", "root"),
            ("", "root", "string", "Directory of another system to install into", ""),
        ),
        least=1,
    ),
)
