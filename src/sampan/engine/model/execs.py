"""A command run inside a living container, as a value."""

from __future__ import annotations

import msgspec


class ExecConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """The body of POST /containers/{id}/exec."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None  # height, width
    attach_stdin: bool = False
    attach_stderr: bool = False
    attach_stdout: bool = False
    detach: bool = False
    detach_keys: str = ""
    env: tuple[str, ...] | None = None
    working_dir: str = ""
    cmd: tuple[str, ...] | None = None


class Exec(msgspec.Struct, frozen=True, kw_only=True):
    """``exit_code`` is None until it ended; ``user`` the effective one (the container's when not given)."""

    id: str
    container_id: str
    config: ExecConfig
    user: str = ""
    running: bool = False
    exit_code: int | None = None
    pid: int = 0
    started: bool = False
    can_remove: bool = False
