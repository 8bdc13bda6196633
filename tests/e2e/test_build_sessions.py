"""What ``sampan build`` can since its engine can ask it: secrets, results, contexts by name, reasons."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest

from tests.e2e import images
from tests.e2e.building import NAME, Builder, nothing_left, own_builder
from tests.e2e.conftest import PROGRAMS
from tests.e2e.serving import Daemon
from tests.e2e.terminal import Terminal

pytestmark = [pytest.mark.root, pytest.mark.e2e]
__all__ = ["nothing_left", "own_builder"]

FROM = f"FROM {images.NAME}\n"


def test_secrets_are_there_for_the_step_and_nowhere_else(
    builder: Builder, daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "s").write_text("hidden-in-a-file")
    text = (
        f"{FROM}RUN --mount=type=secret,id=f cat /run/secrets/f | md5sum; ls -ln /run/secrets/f\n"
        "RUN --mount=type=secret,id=f,target=/etc/s,mode=0440,uid=1,gid=2 ls -ln /etc/s\n"
        'RUN --mount=type=secret,id=v,env=V test "${V##*-}" = variable\n'
        "RUN --mount=type=secret,id=none test ! -e /run/secrets\n"
        "RUN test ! -e /run/secrets/f && test ! -e /etc/s && test -z $V\n"
    )
    secrets = ("--secret", f"id=f,src={tmp_path}/s", "--secret", "id=v,env=HIDDEN")
    said = builder.built(text, *secrets, HIDDEN="hidden-in-a-variable")
    assert "-r--------    1 0        0               16" in said
    assert "-r--r-----    1 1        2               16" in said
    assert said.count("Using cache") == 0
    # What they hold is no part of what a step is known by, as with BuildKit.
    (tmp_path / "s").write_text("another")
    assert builder.built(text, *secrets, HIDDEN="another").count("Using cache") == 5
    shown = builder.run("history", "--no-trunc", NAME).stdout + builder.run("inspect", NAME).stdout
    assert "hidden-in" not in shown
    for folder, _, names in os.walk(daemon.root):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                assert b"hidden-in" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        ("type=secret,id=x,required=true", "secret x: not found"),
        ("type=secret,id=x,required", "secret x: not found"),
        ("type=ssh,required=true", 'no SSH key "default" forwarded from the client'),
        ("type=ssh,id=k,required=true", 'no SSH key "k" forwarded from the client'),
    ],
)
def test_what_is_required_and_not_given(builder: Builder, mount: str, words: str) -> None:
    done = builder.build(f"{FROM}RUN --mount={mount} true\n")
    assert done.returncode == 1
    assert done.stderr == f"Dockerfile:2: {words}\n"
    assert ">>> RUN --mount=" in done.stdout


def test_an_agent_is_a_socket_of_the_step(builder: Builder, tmp_path: Path) -> None:
    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        text = (
            f"{FROM}RUN --mount=type=ssh,mode=0666 stat -c '%a %F' $SSH_AUTH_SOCK\n"
            "RUN test -z $SSH_AUTH_SOCK && test ! -e /run/buildkit\n"
        )
        assert "666 socket\n" in builder.built(text, "--ssh", f"default={path}")
        thread.join(10)


def test_results_go_where_they_are_wanted(
    builder: Builder, environment: dict[str, str], tmp_path: Path
) -> None:
    builder.file("a", "first", 0o640)
    text = f"{FROM}RUN ln -s a /link\nCOPY a /a\n"
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("stays")
    builder.built(text, "--output", str(out))
    assert (out / "a").read_text() == "first"
    assert (out / "a").stat().st_mode & 0o777 == 0o640
    assert os.readlink(out / "link") == "a"
    assert (out / "mine").read_text() == "stays"
    assert builder.run("images", "-q", NAME).stdout == ""
    with open(tmp_path / "stdout", "wb") as file:
        words = [*PROGRAMS["sampan"], "build", "-o", "-", str(builder.folder)]
        subprocess.run(words, env=environment, stdout=file, stderr=subprocess.DEVNULL, check=True)
    with tarfile.open(tmp_path / "stdout") as archive:
        assert archive.getmember("link").linkname == "a"
    iid, metadata = tmp_path / "iid", tmp_path / "metadata"
    archive_path = tmp_path / "image.tar"
    builder.built(
        text,
        *("-o", f"type=docker,dest={archive_path}"),
        *("--iidfile", str(iid), "--metadata-file", str(metadata)),
    )
    assert json.loads(metadata.read_text()) == {
        "containerimage.config.digest": iid.read_text(),
        "containerimage.digest": iid.read_text(),
        "image.name": NAME,
    }
    assert builder.run("load", "-i", str(archive_path)).stdout == f"Loaded image: {NAME}\n"
    assert builder.run("image", "inspect", "-f", "{{.Id}}", NAME).stdout.strip() == iid.read_text()
    assert builder.sh("cat /a") == "first"


def test_contexts_by_name(builder: Builder, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name, text in (("f", "other"), ("g", "ignored"), (".dockerignore", "g")):
        (other / name).write_text(text)
    layout = tmp_path / "layout"
    builder.built(f"{FROM}RUN echo kept > /kept\n", "-o", f"type=oci,dest={layout},tar=false")
    text = (
        f"{FROM.strip()} AS stage\nRUN false\n"
        "FROM base\n"
        "COPY --from=lib . /lib/\n"
        "COPY --from=stage f /stage\n"
        "COPY --from=lay kept /kept\n"
        "RUN --mount=from=lib,target=/m ls /m > /seen\n"
    )
    flags: list[str] = []
    for name, value in {
        "lib": str(other),
        "stage": str(other),
        "base": f"docker-image://{images.NAME}",
        "lay": f"oci-layout://{layout}",
    }.items():
        flags += ["--build-context", f"{name}={value}"]
    builder.built(text, *flags)
    assert builder.sh("ls -A /lib; cat /stage /kept /seen") == ".dockerignore\nf\notherkept\nf\n"
    assert builder.built(text, *flags).count("Using cache") == 5
    done = builder.build(text, "--build-context", f"lib={tmp_path}/nowhere")
    assert (done.returncode, "is no folder" in done.stderr) == (1, True)


def test_why_a_step_ran(builder: Builder) -> None:
    builder.file("sub/a", "1")
    builder.file("sub/b", "1")
    text = f"{FROM}ARG V\nRUN echo $V\nCOPY sub /sub\nRUN ls /sub\n"

    def reasons(*flags: str) -> list[str]:
        said = builder.built(text, "--explain", *flags).splitlines()
        return [line for line in said if line.startswith(("Ran: ", "  ")) and ":" in line]

    assert reasons("--build-arg", "V=1")[0] == "Ran: RUN echo $V"
    assert reasons("--build-arg", "V=1") == []
    builder.file("sub/a", "2")
    assert reasons("--build-arg", "V=1") == [
        "Ran: COPY sub /sub",
        "  file sub/a: changed",
        "Ran: RUN ls /sub",
        "  parent: the step before it came to other files",
    ]
    found = reasons("--build-arg", "V=2")
    assert found[:2] == ["Ran: RUN echo $V", "  V: another value"]


def test_progress_as_documents(builder: Builder) -> None:
    done = builder.build(f"{FROM}RUN echo said\n", "--progress", "rawjson")
    assert (done.returncode, done.stdout) == (0, "")
    documents = [json.loads(line) for line in done.stderr.splitlines()]
    ends = [one for document in documents for one in document.get("vertexes", ()) if "completed" in one]
    assert [one["name"] for one in ends] == [f"[1/2] {FROM.strip()}", "[2/2] RUN echo said"]
    assert [document["logs"][0]["data"] for document in documents if "logs" in document] == ["c2FpZAo="]


def test_a_step_that_fails_is_shown_with_its_end(builder: Builder) -> None:
    done = builder.build(f"{FROM}RUN seq 20; exit 3\n")
    assert (done.returncode, "returned a non-zero code: 3" in done.stderr) == (3, True)
    lines = "".join(f"{number}\n" for number in range(11, 21))
    assert f"------\n > RUN seq 20; exit 3:\n{lines}------\nDockerfile:2\n" in done.stdout
    assert "   2 | >>> RUN seq 20; exit 3\n" in done.stdout


def test_a_shell_where_a_step_failed(builder: Builder, environment: dict[str, str]) -> None:
    builder.file("Dockerfile", f"{FROM}ENV A=5\nWORKDIR /w\nRUN echo made > made; exit 7\n")
    words = [*PROGRAMS["sampan"], "build", "--shell-on-failure", str(builder.folder)]
    with Terminal(words, environment=environment) as terminal:
        terminal.expect(b"# ")
        terminal.type(b"cat made; stty size; echo A=$A in $PWD; exit\r")
        terminal.expect(b"made\r\n24 80\r\nA=5 in /w")
        terminal.expect(b"returned a non-zero code: 7")
        assert terminal.end() == 7
    done = builder.build(f"{FROM}RUN false\n", "--shell-on-failure")
    assert done.stderr == "--shell-on-failure: the input device is not a TTY\n"
