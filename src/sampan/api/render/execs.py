"""Commands run in living containers."""

from __future__ import annotations

from typing import Any

from sampan.engine.model import Exec


def inspect(value: Exec) -> dict[str, Any]:
    """GET /exec/{id}/json."""
    config = value.config
    entrypoint, *arguments = config.cmd or ("",)
    process: dict[str, Any] = {
        "tty": config.tty,
        "entrypoint": entrypoint,
        "arguments": arguments,
        "privileged": config.privileged,
    }
    if value.user:
        process["user"] = value.user
    return {
        "ID": value.id,
        "Running": value.running,
        "ExitCode": value.exit_code,
        "ProcessConfig": process,
        "OpenStdin": config.attach_stdin,
        "OpenStderr": config.attach_stderr,
        "OpenStdout": config.attach_stdout,
        "CanRemove": value.can_remove,
        "ContainerID": value.container_id,
        "DetachKeys": "",
        "Pid": value.pid,
    }
