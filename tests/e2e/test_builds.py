"""Builds by the docker CLI's classic client and by ``sampan build``: the same files, words and exit codes."""

from __future__ import annotations

import functools
import gzip
import http.server
import io
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import docker
import docker.errors
import pytest

from tests.e2e import images
from tests.e2e.building import NAME, Builder, Result, builder, nothing_left
from tests.e2e.conftest import PROGRAMS
from tests.e2e.packages import program as packaged
from tests.e2e.serving import Daemon

__all__ = ["builder", "nothing_left"]

pytestmark = [pytest.mark.root, pytest.mark.e2e]

FIRST = f"""\
FROM {images.NAME}
# a comment
ENV A=1 B="two words"
LABEL kind=test
WORKDIR /w/x
RUN echo $A $B > file && umask 077 && mkdir ../private
COPY sub /copied/
EXPOSE 80 53/udp
VOLUME /data
HEALTHCHECK --interval=7s CMD test -e /w
STOPSIGNAL SIGINT
USER 1000
ENTRYPOINT ["sh", "-c"]
CMD ["cat file"]
"""


def test_files_and_configuration(builder: Builder) -> None:
    builder.file("sub/a", "a", 0o640)
    builder.file("sub/b/c", "c")
    said = builder.built(FIRST)
    assert "Step 1/13 : FROM" in said
    assert said.splitlines()[-1] == f"Successfully tagged {NAME}"
    assert builder.run("run", "--rm", NAME).stdout == "1 two words\n"
    assert builder.sh("stat -c '%a %u %n' /copied/a /copied/b /w/private") == (
        "640 0 /copied/a\n755 0 /copied/b\n700 0 /w/private\n"
    )
    config = builder.config()
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "test -e /w"], "Interval": 7 * 10**9}
    assert config["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("1000", "/w/x", "SIGINT")
    assert (config["Labels"], config["Volumes"]) == ({"kind": "test"}, {"/data": {}})


def test_what_is_not_changed_is_not_done_again(builder: Builder) -> None:
    text = (
        f"FROM {images.NAME}\nARG V=1\nRUN cat /proc/sys/kernel/random/uuid > /when\n"
        "COPY a /a\nRUN cp /a /b; echo $V > /v\n"
    )

    def uses(*arguments: str) -> int:
        return builder.built(text, *arguments).count("Using cache")

    builder.file("a", "1")
    assert uses() == 0
    first = builder.sh("cat /when")
    assert uses() == 3
    os.utime(builder.folder / "a", (5, 5))
    assert uses() == 3
    assert uses("--build-arg", "V=2") == 0  # it is in the environment of every RUN after it
    assert uses("--build-arg", "V=2") == 3
    builder.file("a", "2")
    assert uses() == 1
    assert builder.sh("cat /when /b") == f"{first}2"
    (builder.folder / "a").chmod(0o600)
    assert uses() == 1
    assert uses("--no-cache") == 0
    assert builder.sh("cat /when") != first


def test_stages(builder: Builder) -> None:
    said = builder.built(
        f"""\
ARG base={images.NAME}
FROM $base AS one
RUN mkdir /d && echo one > /d/f && ln -s f /d/l
FROM one AS two
RUN echo two >> /d/f
FROM $base AS never
RUN exit 9
FROM $base
COPY --from=two /d /d
COPY --from=0 /d/f /first
COPY --from={images.NAME} /etc/passwd /p
"""
    )
    assert "exit 9" not in said
    assert builder.sh("cat /d/l /first; head -c 4 /p") == "one\ntwo\none\nroot"
    assert builder.build((builder.folder / "Dockerfile").read_text(), "--target", "one").returncode == 0
    assert builder.sh("cat /d/f") == "one\n"


def test_a_failed_step_ends_with_its_code(builder: Builder) -> None:
    done = builder.build(f"FROM {images.NAME}\nRUN echo out; echo err >&2; exit 7\n")
    assert done.returncode == 7
    assert "out\n" in done.stdout
    assert "err\n" in done.stdout
    assert done.stderr.strip() == (
        "The command '/bin/sh -c echo out; echo err >&2; exit 7' returned a non-zero code: 7"
    )
    quiet = builder.build(f"FROM {images.NAME}\nRUN echo out; exit 7\n", "-q")
    assert (quiet.returncode, quiet.stdout) == (7, "")
    assert "Step 2/2" in quiet.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"FROM {images.NAME}\n\nRUNN x\n", "line 3: unknown instruction: RUNN (did you mean run?)"),
        (f"FROM {images.NAME}\nCOPY nothing /\n", "Dockerfile:2: file not found in build context"),
        (f"FROM {images.NAME}\nCOPY ../x /\n", "forbidden path outside the build context: ../x"),
        ("FROM $nothing\n", "base name ($nothing) should not be blank"),
        ("\n", "cannot be empty"),
        ("RUN x\n", "no build stage in current context"),
        (f"FROM {images.NAME} AS a\nCOPY --from=a /x /\n", "circular dependency detected on stage: a"),
        (f"FROM {images.NAME}\nENV X=${{Y:?is missing}}\n", "is missing"),
        (f"FROM {images.NAME}\nUSER nobody-here\nRUN true\n", "nobody-here"),
    ],
)
def test_a_bad_file_is_told_with_its_line(builder: Builder, text: str, message: str) -> None:
    done = builder.build(text)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_arguments(builder: Builder) -> None:
    text = (
        f"FROM {images.NAME}\nARG A=1\nARG B\nARG TARGETARCH\nENV C=$A\n"
        'RUN echo "$A,$B,$C,$TARGETARCH,$HTTP_PROXY" > /o\n'
    )
    said = builder.built(
        text,
        "--build-arg",
        "A=2",
        "--build-arg",
        "B",
        "--build-arg",
        "HTTP_PROXY=p",
        "--build-arg",
        "U=1",
        B="b",
    )
    assert "[Warning] One or more build-args [U] were not consumed" in said
    assert builder.sh("cut -d, -f 1-3,5 /o") == "2,b,2,p\n"
    assert not any("HTTP_PROXY" in entry for entry in builder.config()["Env"])


def test_ignored_files(builder: Builder) -> None:
    for name in ("keep", "drop.o", "big/x", "big/keep", "deep/er/y.o"):
        builder.file(name, name)
    builder.file(".dockerignore", "# none\n**/*.o\nbig\n!big/keep\nDockerfile\n.dockerignore\n")
    builder.built(f"FROM {images.NAME}\nCOPY . /all\n")
    assert builder.sh("cd /all; find . -type f | sort") == "./big/keep\n./keep\n"


def test_heredocs_and_mounts(builder: Builder) -> None:
    builder.file("script", "echo from the context\n")
    builder.built(
        f"""\
FROM {images.NAME}
RUN <<END
echo one > /o
echo two >> /o
END
COPY <<END /text
hello
END
RUN --mount=type=cache,target=/cache/dir echo kept >> /cache/dir/f
RUN --mount=type=bind,target=/m sh /m/script > /o2
RUN --mount=type=tmpfs,target=/scratch touch /scratch/x
RUN --mount=type=cache,target=/cache/dir cp /cache/dir/f /f
"""
    )
    assert builder.sh("cat /o /text /o2 /f") == "one\ntwo\nhello\nfrom the context\nkept\n"
    assert builder.sh("ls -d /cache /m /scratch 2>/dev/null || true") == ""  # no stubs of mount points


def test_archives(builder: Builder) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        member = tarfile.TarInfo("in/side")
        member.size, member.uid = 2, 7
        archive.addfile(member, io.BytesIO(b"hi"))
    (builder.folder / "plain.tar").write_bytes(data.getvalue())
    (builder.folder / "packed.tgz").write_bytes(gzip.compress(data.getvalue()))
    (builder.folder / "text.gz").write_bytes(gzip.compress(b"no tar"))
    builder.built(
        f"FROM {images.NAME}\nADD plain.tar packed.tgz text.gz /d/\nADD packed.tgz /e\nCOPY plain.tar /f\n"
    )
    assert builder.sh("cat /d/in/side /e/in/side; stat -c %u /d/in/side; ls /d /f") == (
        "hihi7\n/f\n\n/d:\nin\ntext.gz\n"
    )


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        return


def test_an_address(builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served/file.txt").write_text("served")
    handler = functools.partial(_Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        builder.built(f"FROM {images.NAME}\nADD {address}/file.txt /d/\n")
        assert builder.sh("stat -c %a /d/file.txt; cat /d/file.txt") == "600\nserved"
        wrong = f"FROM {images.NAME}\nADD --checksum=sha256:{'0' * 64} {address}/file.txt /d/\n"
        assert "digest mismatch" in builder.build(wrong).stderr
        assert builder.build(f"FROM {images.NAME}\nADD {address}/missing /d/\n").returncode == 1
        server.shutdown()


def test_triggers(builder: Builder) -> None:
    builder.built(f"FROM {images.NAME}\nONBUILD COPY a /a\nONBUILD RUN echo done >> /a\n")
    builder.run("tag", NAME, "trigger:test")
    builder.file("a", "a\n")
    try:
        said = builder.built("FROM trigger:test\n")
        assert "# Executing 2 build triggers" in said
        assert builder.sh("cat /a") == "a\ndone\n"
        assert not builder.config().get("OnBuild")
    finally:
        builder.run("rmi", "trigger:test")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no compiler")
def test_a_static_program_from_scratch(builder: Builder) -> None:
    builder.file("main.c", '#include <stdio.h>\nint main(void) { puts("alone"); return 0; }\n')
    source, target = builder.folder / "main.c", builder.folder / "main"
    subprocess.run(["gcc", "-static", "-Os", "-o", target, source], check=True)
    builder.built('FROM scratch\nCOPY main /main\nENTRYPOINT ["/main"]\n')
    assert builder.run("run", "--rm", "--network", "none", NAME).stdout == "alone\n"


def test_what_can_be_sent(builder: Builder, tmp_path: Path) -> None:
    text = f"FROM {images.NAME}\nLABEL from=input\n"
    assert builder.run("build", "-t", NAME, "-", text=text).returncode == 0
    assert builder.config()["Labels"] == {"from": "input"}
    builder.file("Other", f"FROM {images.NAME}\nCOPY x /x\n")
    builder.file("x", "x")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        archive.add(builder.folder, ".")
    assert builder.run("build", "-t", NAME, "-f", "Other", "-", text=data.getvalue()).returncode == 0
    assert builder.sh("cat /x") == "x"
    (tmp_path / "Outside").write_text(f"FROM {images.NAME}\nCOPY . /all\n")
    done = builder.run("build", "-t", NAME, "-f", str(tmp_path / "Outside"), str(builder.folder))
    assert done.returncode == 0, done.stderr
    assert builder.sh("ls -A /all") == "Other\nx\n"


def test_names_labels_and_the_identity(builder: Builder, tmp_path: Path) -> None:
    identity = tmp_path / "iid"
    arguments = ("-q", "-t", "second:test", "--label", "a=b", "--iidfile", str(identity))
    said = builder.built(f"FROM {images.NAME}\nLABEL c=d\n", *arguments)
    assert said.strip() == identity.read_text().strip()
    assert builder.config()["Labels"] == {"a": "b", "c": "d"}
    names = builder.run("image", "inspect", "-f", '{{join .RepoTags " "}}', said.strip()).stdout.split()
    assert sorted(names) == [NAME, "second:test"]
    builder.run("rmi", "second:test")


def test_hosts_networks_and_limits(builder: Builder) -> None:
    text = f"FROM {images.NAME}\nRUN grep -c 10.9.9.9 /etc/hosts; ls /sys/class/net; ulimit -n\n"
    arguments = ("--add-host", "db:10.9.9.9", "--network", "none", "--ulimit", "nofile=77", "-m", "64m")
    said = builder.built(text, *arguments)
    assert "\n1\nlo\n77\n" in said


def test_equal_inputs_give_equal_images(builder: Builder) -> None:
    builder.file("a", "a")
    text = f"FROM {images.NAME}\nCOPY a /x/a\nWORKDIR /new\nRUN echo same > /same; mkdir /m\n"
    made = set()
    for _ in range(2):
        arguments = ("-q", "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1000000000")
        made.add(builder.built(text, *arguments))
        os.utime(builder.folder / "a")
    assert len(made) == 1
    assert builder.sh("stat -c %Y /x/a /x /new /same /m | sort -u") == "1000000000\n"


def test_the_cache_is_told_and_pruned(builder: Builder) -> None:
    builder.run("builder", "prune", "-af")
    builder.built(f"FROM {images.NAME}\nRUN --mount=type=cache,target=/c head -c 5000 /dev/zero > /c/x\n")
    assert "Build Cache     2" in builder.run("system", "df").stdout
    assert builder.run("builder", "prune", "-f", "--filter", "until=1h").stdout.endswith(": 0B\n")
    assert builder.run("builder", "prune", "-f").stdout.endswith("5kB\n")
    assert builder.run("builder", "prune", "-af").returncode == 0
    assert "Build Cache     0" in builder.run("system", "df").stdout


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--cache-to", "type=gha"),
    ],
)
def test_what_the_classic_api_lacks_is_refused_in_one_line(
    environment: dict[str, str], tmp_path: Path, flag: str, value: str
) -> None:
    sampan = Builder(PROGRAMS["sampan"], environment, tmp_path)
    done = sampan.build(f"FROM {images.NAME}\n", flag, value)
    assert (done.returncode, done.stdout) == (1, "")
    assert "not offered" in done.stderr
    assert done.stderr.count("\n") == 1


def test_clients_show_the_cache_alike(environment: dict[str, str], builder: Builder, tmp_path: Path) -> None:
    builder.built(f"FROM {images.NAME}\nRUN echo a > /a\n")
    shown = [Builder(words, environment, tmp_path).run("system", "df").stdout for words in PROGRAMS.values()]
    assert shown[0] == shown[1]
    assert "Build Cache     1 " in shown[0]


# ------------------------------------------------------------------ docker-py and docker-compose


def test_docker_py(daemon: Daemon, tmp_path: Path) -> None:
    client = docker.DockerClient(base_url=daemon.host, timeout=60)
    try:
        (tmp_path / "Dockerfile").write_text(f"FROM {images.NAME}\nARG A\nRUN echo $A > /o\n")
        image, logs = client.images.build(path=str(tmp_path), tag=NAME, buildargs={"A": "py"}, rm=True)
        assert image.tags == [NAME]
        assert any("Step 3/3" in entry.get("stream", "") for entry in logs)
        assert client.containers.run(NAME, "cat /o", remove=True, network_mode="none") == b"py\n"
        with pytest.raises(docker.errors.BuildError) as failed:
            client.images.build(fileobj=io.BytesIO(f"FROM {images.NAME}\nRUN exit 5\n".encode()))
        assert "returned a non-zero code: 5" in str(failed.value)
        assert failed.value.build_log is not None
        with pytest.raises(docker.errors.APIError, match="unknown instruction"):
            client.images.build(fileobj=io.BytesIO(b"FROM x\nWHAT\n"))
        client.images.remove(NAME)
    finally:
        client.close()


def test_docker_compose_builds(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/Dockerfile").write_text(f"FROM {images.NAME}\nARG WHO\nRUN echo $WHO > /o\n")
    (tmp_path / "compose.yml").write_text(
        f"services:\n  app:\n    image: {NAME}\n    network_mode: none\n"
        "    build: {context: app, args: {WHO: compose}}\n    command: cat /o\n"
    )
    run: Callable[..., Result] = functools.partial(
        subprocess.run,
        capture_output=True,
        text=True,
        check=False,
        env={"DOCKER_HOST": daemon.host, "HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        timeout=60,
    )
    words = [packaged("docker-compose"), "-p", "built", "-f", str(tmp_path / "compose.yml")]
    done = run([*words, "build"])
    assert done.returncode == 0, done.stderr
    done = run([*words, "run", "--rm", "app"])
    assert done.stdout.strip().endswith("compose"), done.stderr
    run([*words, "down", "--rmi", "all"])
