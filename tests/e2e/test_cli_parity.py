"""``sampan`` beside the docker CLI on one engine: the same exit code, stdout and stderr, ids and times aside.

A row is what is typed. ``{image}`` is the image, ``{box}`` a running container, ``{idle}`` a created one and
``{done}`` one that printed and ended; each program gets containers of its own, made alike.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Client

pytestmark = pytest.mark.e2e

READ_ONLY = r"""
ps --filter name=parity-nothing
ps -a --no-trunc --filter name={box} --format '{{{{.Names}}}} {{{{.Image}}}} {{{{.Command}}}} {{{{.State}}}}'
ps -a --filter name={box} --format 'table {{{{.Names}}}}\t{{{{.Label "x"}}}}\t{{{{.Ports}}}}'
ps -a --filter name={box} --format 'table {{{{.Names | upper}}}}|{{{{.Networks}}}}|{{{{.LocalVolumes}}}}'
ps -aq --filter name={box}
ps -a --filter name={box} --format '{{{{.Foo}}}}'
ps --format '{{{{.Foo'
ps --filter foo
ps --filter foo=bar
ps -n a
inspect {box} --format '{{{{.Config.Labels}}}} {{{{.HostConfig.RestartPolicy}}}} {{{{.Path}}}} {{{{.Args}}}}'
inspect {box} --format '{{{{json .Config.Labels}}}}'
inspect {box} --format '{{{{range .Config.Env}}}}{{{{println .}}}}{{{{end}}}}'
inspect {image} --format '{{{{.RepoTags}}}} {{{{json .Config.Cmd}}}}'
inspect parity-nothing
inspect parity-nothing parity-less
inspect --type image parity-nothing
inspect --type foo x
container inspect parity-nothing
image inspect parity-nothing
volume inspect parity-nothing
network inspect parity-nothing
inspect bridge --format '{{{{.Name}}}} {{{{.Driver}}}}'
network ls --filter name=host --format '{{{{.Name}}}} {{{{.Driver}}}} {{{{.Scope}}}}'
logs {done}
logs -t --tail 1 {done}
logs --since 1h {done}
logs --since foo {done}
logs parity-nothing
wait {done}
port {box}
port {box} 80
exec {box} sh -c 'echo out; echo err >&2; exit 3'
exec -e A=B -w /tmp -u 0 {box} sh -c 'echo $A; pwd; id -u'
exec {box} parity-nothing
exec {idle} true
exec parity-nothing true
exec -it {box} true
exec {box}
attach {idle}
attach parity-nothing
start parity-nothing parity-less
start -a parity-nothing
stop parity-nothing
kill parity-nothing
kill -s FOO {box}
pause {idle}
unpause {box}
rm parity-nothing
rm -f parity-nothing
rm {box}
rename parity-nothing x
rename {box} {idle}
top {idle}
images parity-nothing
images --filter reference={image} --format '{{{{.Repository}}}} {{{{.Tag}}}} {{{{.ID}}}} {{{{.Size}}}}'
images -q {image}
history {image} --format '{{{{.ID}}}} {{{{.Size}}}} {{{{.Comment}}}}'
rmi parity-nothing
rmi -f parity-nothing
tag parity-nothing x
tag {image} BAD
load -i /parity-nothing
save -o /parity-nothing/x {image}
volume rm parity-nothing
volume create -d parity-nothing v
events --since foo
events --since 1s --until 0s --filter container=parity-nothing
version --format '{{{{.Server.Version}}}} {{{{.Server.Os}}}}'
info --format '{{{{.Driver}}}} {{{{.OSType}}}}'
run
run --foo {image}
run --rm {image} sh -c 'echo out; echo err >&2; exit 7'
run --rm {image} parity-nothing
run --rm {image} /etc
run --rm --entrypoint sh {image} -c 'echo $0'
run --rm -e A=B -e C --hostname box -w /tmp {image} sh -c 'echo $A; hostname; pwd'
run --rm -u 7:8 {image} id -u
run --rm -u nobodyatall {image} true
run --rm -it {image} true
run --rm -t {image} echo hi
run --rm -a stdout {image} sh -c 'echo out; echo err >&2'
run --rm --name {box} {image} true
run --rm -v /a:/b:zz {image} true
run --rm --memory 1k {image} true
run --rm --restart always {image} true
run -d -a stdin {image}
run --pull never parity-nothing
run --rm --init --read-only --network none {image} echo hi
container foo
foo
ps x
ps --foo
help foo
"""

ROWS = [row for row in READ_ONLY.splitlines() if row]

_MASKS = (
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b[0-9a-f]{12}\b", "ID"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?( \+0000 UTC)?", "TIME"),
    (r"(?i)(parity)-(sampan|docker)-", r"\1-"),
    (r"(?i)sampan", "docker"),
    (r"exit status 1\n", ""),
)


def masked(text: str) -> str:
    """``text`` without what differs from run to run."""
    for pattern, name in _MASKS:
        text = re.sub(pattern, name, text)
    # Docker capitalises its own name
    return text.replace("Docker", "docker").rstrip()


@pytest.fixture(scope="module")
def boxes(environment: dict[str, str], image: str) -> Iterator[dict[str, dict[str, str]]]:
    """Containers of each program, made by the docker CLI."""
    import subprocess

    def docker(*arguments: str) -> None:
        subprocess.run(["docker", *arguments], env=environment, check=True, capture_output=True)

    named: dict[str, dict[str, str]] = {}
    try:
        for program in ("docker", "sampan"):
            names = {kind: f"parity-{program}-{kind}" for kind in ("box", "idle", "done")}
            named[program] = {**names, "image": image}
            docker("run", "-d", "-l", "x=y", "--name", names["box"], image, "sleep", "1000")
            docker("create", "--name", names["idle"], image, "true")
            docker("create", "--name", names["done"], image, "sh", "-c", "echo one; echo two")
            docker("start", "-a", names["done"])
        yield named
    finally:
        for names in named.values():
            subprocess.run(
                ["docker", "rm", "-fv", *(names[kind] for kind in ("box", "idle", "done"))],
                env=environment,
                check=False,
                capture_output=True,
            )


@pytest.mark.parametrize("row", ROWS)
def test_same_answer(row: str, client: Client, boxes: dict[str, dict[str, str]]) -> None:
    answers = {}
    for program in ("docker", "sampan"):
        done = client(program, shlex.split(row.format(**boxes[program])))
        answers[program] = (done.returncode, masked(done.stdout), masked(done.stderr))
    assert answers["sampan"] == answers["docker"]


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_standard_input_reaches_the_container_whole(size: int, client: Client, image: str) -> None:
    text = "x" * size
    done = client("sampan", ["run", "-i", "--rm", image, "cat"], text)
    assert (done.returncode, done.stdout, done.stderr) == (0, text, "")


def test_life_of_a_container(client: Client, image: str) -> None:
    def sampan(*arguments: str) -> tuple[int, str]:
        done = client("sampan", arguments)
        return done.returncode, done.stdout.strip()

    name = "parity-sampan-life"
    try:
        code, identity = sampan("run", "-d", "--name", name, image, "sleep", "1000")
        assert (code, len(identity)) == (0, 64)
        assert sampan("pause", name) == (0, name)
        assert sampan("ps", "--filter", f"name={name}", "--format", "{{.State}}") == (0, "paused")
        assert sampan("unpause", name) == (0, name)
        assert sampan("exec", name, "echo", "hi") == (0, "hi")
        assert sampan("rename", name, name + "2") == (0, "")
        name += "2"
        assert sampan("kill", name) == (0, name)
        assert sampan("wait", name) == (0, "137")
        assert sampan("start", name) == (0, name)
        assert sampan("stop", "-t", "0", name) == (0, name)
        assert sampan("inspect", "-f", "{{.State.Status}}", name) == (0, "exited")
    finally:
        sampan("rm", "-f", "parity-sampan-life", "parity-sampan-life2")
    assert sampan("ps", "-aq", "--filter", "name=parity-sampan-life") == (0, "")
