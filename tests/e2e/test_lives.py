"""Lives of containers as users see them: restart policies, health, time limits, restart, signals that arrive.

What is waited for is an event or a state, never a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import docker
import docker.errors
import pytest

from tests.e2e import images
from tests.e2e.conftest import PROGRAMS, Client
from tests.e2e.serving import Daemon

pytestmark = [pytest.mark.root, pytest.mark.e2e]

# docker-py is not typed.
Container: TypeAlias = Any
Make: TypeAlias = Callable[..., Container]

SECOND = 1_000_000_000
PATIENCE = 20
FOREVER = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]


@pytest.fixture(scope="module")
def api(daemon: Daemon) -> Iterator[docker.DockerClient]:
    connected = docker.DockerClient(base_url=daemon.host, timeout=PATIENCE)
    yield connected
    connected.close()


@pytest.fixture
def make(api: docker.DockerClient) -> Iterator[Make]:
    """Start a container in the background; it is removed after the test."""
    made: list[Container] = []

    def start(command: object, **options: object) -> Container:
        made.append(api.containers.run(images.NAME, command, detach=True, **options))
        return made[-1]

    yield start
    for container in made:
        with contextlib.suppress(docker.errors.NotFound):
            container.remove(force=True, v=True)


class Told:
    """The events of a container since the moment that this was made."""

    def __init__(self, api: docker.DockerClient, container: str) -> None:
        self._stream = api.api.events(decode=True, filters={"container": container})

    def __iter__(self) -> Iterator[tuple[str, dict[str, str]]]:
        for event in self._stream:
            yield event["Action"], event["Actor"]["Attributes"]

    def until(self, action: str, times: int = 1) -> list[str]:
        """The actions up to and including the one that is waited for."""
        found = []
        for told, _ in self:
            found.append(told)
            if found.count(action) == times:
                break
        return found


# ---- restart policies ------------------------------------------------------------------------------------


def test_failures_are_answered_as_often_as_was_asked(api: docker.DockerClient, make: Make) -> None:
    told = Told(api, "fails")
    container = make(
        ["sh", "-c", "exit 3"], name="fails", restart_policy={"Name": "on-failure", "MaximumRetryCount": 2}
    )
    actions = [action for action in told.until("die", 3) if action in ("start", "die", "restart")]
    assert actions == ["start", "die"] * 3
    container.wait()
    container.reload()
    assert (container.status, container.attrs["RestartCount"]) == ("exited", 2)


def test_a_run_in_front_ends_with_the_first_exit(client: Client, api: docker.DockerClient) -> None:
    for program in PROGRAMS:
        arguments = ["run", "--name", "front", "--restart", "on-failure:1", images.NAME]
        done = client(program, [*arguments, "sh", "-c", "echo once; exit 4"])
        assert (done.returncode, done.stdout) == (4, "once\n")
        api.containers.get("front").remove(force=True)


def test_what_waits_for_its_start(client: Client, api: docker.DockerClient, make: Make) -> None:
    told = Told(api, "loops")
    container = make(["sh", "-c", "exit 3"], name="loops", restart_policy={"Name": "always"})
    told.until("die", 6)  # the wait is 3.2 seconds now
    container.reload()
    state = container.attrs["State"]
    assert (container.status, state["Running"], state["Restarting"]) == ("restarting", True, True)
    assert (state["ExitCode"], state["Pid"]) == (3, 0)
    shown = client("docker", ["ps", "--filter", "name=loops", "--format", "{{.Status}}"]).stdout
    assert shown.startswith("Restarting (3) ")
    waits = f"Container {container.id} is restarting, wait until the container is running"
    for program in PROGRAMS:
        for arguments, code, words in (
            (("exec", "loops", "true"), 1, waits),
            (("pause", "loops"), 1, waits),
            (("attach", "loops"), 1, "cannot attach to a restarting container, wait until it is running"),
            (
                ("rm", "loops"),
                1,
                "container is restarting: stop the container before removing or force remove",
            ),
            (("start", "loops"), 0, ""),
        ):
            done = client(program, arguments)
            assert done.returncode == code, (program, arguments, done)
            assert words in done.stderr
    told = Told(api, "loops")
    assert client("sampan", ["stop", "loops"]).returncode == 0
    assert told.until("stop") == ["stop"]
    container.reload()
    assert (container.status, container.attrs["State"]["ExitCode"]) == ("exited", 3)


@pytest.mark.parametrize("program", PROGRAMS)
def test_policies_that_there_are_not(client: Client, program: str) -> None:
    for flags, words in (
        (("--restart", "odd"), "invalid restart policy: unknown policy 'odd'; use one of 'no', 'always'"),
        (("--restart", "always:3"), "maximum retry count can only be used with 'on-failure'"),
        (("--restart", "on-failure:x"), "maximum retry count must be an integer"),
        (("--restart", "always", "--rm"), "conflicting options: cannot specify both --restart and --rm"),
    ):
        refused = client(program, ["create", *flags, images.NAME, "true"])
        assert refused.returncode != 0
        assert words in refused.stderr


def test_a_policy_given_to_a_living_container(client: Client, api: docker.DockerClient, make: Make) -> None:
    make(["sh", "-c", "trap 'exit 3' USR1; while :; do sleep 0.05; done"], name="changes", stop_signal="QUIT")
    assert client("docker", ["update", "--restart", "on-failure", "changes"]).returncode == 0
    told = Told(api, "changes")
    # Not its stop signal: for its policy it ends by itself.
    api.containers.get("changes").kill("USR1")
    actions = [action for action in told.until("start") if action in ("die", "start")]
    assert actions == ["die", "start"]


# ---- restart ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", PROGRAMS)
def test_restart(client: Client, api: docker.DockerClient, make: Make, program: str) -> None:
    one = make(["sh", "-c", "trap 'exit 5' USR1; while :; do sleep 0.05; done"], name="one")
    two = make(FOREVER, name="two")
    two.pause()
    created = api.containers.create(images.NAME, FOREVER, name="three")
    told = Told(api, "one")
    try:
        arguments = ["restart", "-s", "USR1", "-t", "20", "one"]
        assert client(program, arguments).stdout == "one\n"
        assert told.until("restart") == ["kill", "die", "stop", "start", "restart"]
        done = client(program, ["restart", "-t", "0", "two", "nobody", "three"])
        assert (done.returncode, done.stdout) == (1, "two\nthree\n")
        assert "No such container: nobody" in done.stderr
        for container in (one, two, created):
            container.reload()
            assert container.status == "running"
    finally:
        created.remove(force=True)


def test_a_rm_container_survives_its_restart(client: Client, api: docker.DockerClient, make: Make) -> None:
    container = make(FOREVER, name="short", remove=True)
    assert client("docker", ["restart", "-t", "0", "short"]).returncode == 0
    container.reload()
    assert container.status == "running"
    container.stop(timeout=0)
    with contextlib.suppress(docker.errors.NotFound):
        container.wait(condition="removed")
    with pytest.raises(docker.errors.NotFound):
        container.reload()


# ---- health ----------------------------------------------------------------------------------------------


def test_health_from_starting_to_healthy_to_unhealthy(
    client: Client, api: docker.DockerClient, make: Make
) -> None:
    told = Told(api, "well")
    check = {"test": "echo looked; test -e /well", "interval": SECOND // 10, "retries": 2}
    container = make(FOREVER, name="well", healthcheck=check)
    container.reload()
    assert container.attrs["State"]["Health"]["Status"] in ("starting", "unhealthy")
    assert "health_status: unhealthy" in told.until("health_status: unhealthy")
    container.exec_run(["touch", "/well"])
    actions = told.until("health_status: healthy")
    probe = actions[actions.index("exec_create: /bin/sh -c echo looked; test -e /well") :]
    assert probe[0].startswith("exec_create: ")
    assert actions[-2:] == ["exec_die", "health_status: healthy"]
    for program in PROGRAMS:
        status = client(program, ["ps", "--filter", "health=healthy", "--format", "{{.Names}} {{.Status}}"])
        assert status.stdout.startswith("well Up ")
        assert status.stdout.endswith("(healthy)\n")
        assert client(program, ["ps", "-q", "--filter", "health=unhealthy"]).stdout == ""
    container.reload()
    health = container.attrs["State"]["Health"]
    assert (health["Status"], health["FailingStreak"]) == ("healthy", 0)
    assert set(health["Log"][-1]) == {"Start", "End", "ExitCode", "Output"}
    assert (health["Log"][-1]["ExitCode"], health["Log"][-1]["Output"]) == (0, "looked\n")
    assert len(health["Log"]) <= 5


def test_a_check_that_takes_too_long(api: docker.DockerClient, make: Make) -> None:
    told = Told(api, "slow")
    check = {
        "test": ["CMD-SHELL", "echo half; sleep 5000; true"],
        "interval": SECOND // 10,
        "timeout": SECOND // 5,
        "retries": 1,
    }
    container = make(FOREVER, name="slow", healthcheck=check)
    told.until("health_status: unhealthy")
    container.reload()
    last = container.attrs["State"]["Health"]["Log"][0]
    assert (last["ExitCode"], last["Output"]) == (-1, "Health check exceeded timeout (200ms): half\n")
    container.pause()  # no further check
    processes = [row[-1] for row in container.top()["Processes"]]
    assert len([row for row in processes if "sleep 5000" in row]) <= 1


def test_flags_of_health_checks(client: Client, api: docker.DockerClient) -> None:
    flags = (
        *("--health-cmd", "true", "--health-interval", "3s", "--health-timeout", "2s"),
        *("--health-retries", "4", "--health-start-period", "5s", "--health-start-interval", "1s"),
    )
    for program in PROGRAMS:
        assert client(program, ["create", "--name", "flags", *flags, images.NAME, "true"]).returncode == 0
        found = api.containers.get("flags")
        assert found.attrs["Config"]["Healthcheck"] == {
            "Test": ["CMD-SHELL", "true"],
            "Interval": 3 * SECOND,
            "Timeout": 2 * SECOND,
            "StartPeriod": 5 * SECOND,
            "StartInterval": SECOND,
            "Retries": 4,
        }
        found.remove()
        none = client(program, ["run", "-d", "--name", "flags", "--no-healthcheck", images.NAME, "true"])
        assert none.returncode == 0
        found = api.containers.get("flags")
        assert "Health" not in found.attrs["State"]
        found.remove(force=True)
        refused = client(program, ["create", "--health-interval", "1us", images.NAME, "true"])
        assert "Interval in Healthcheck cannot be less than 1ms" in refused.stderr


def test_what_is_unhealthy_is_started_again(api: docker.DockerClient, make: Make) -> None:
    told = Told(api, "phoenix")
    check = {"test": "test ! -e /ill", "interval": SECOND // 10, "retries": 1}
    script = "rm -f /ill; " + FOREVER[2]
    container = make(
        ["sh", "-c", script], name="phoenix", healthcheck=check, restart_policy={"Name": "on-unhealthy"}
    )
    told.until("health_status: healthy")
    container.exec_run(["touch", "/ill"])
    actions = [action for action in told.until("health_status: healthy") if "exec" not in action]
    actions = actions[actions.index("health_status: unhealthy") :]
    wanted = ["health_status: unhealthy", "kill", "die", "start", "health_status: healthy"]
    assert [action for action in actions if action in wanted] == wanted
    container.reload()
    assert container.attrs["RestartCount"] == 1


# ---- time limits -----------------------------------------------------------------------------------------


def test_a_time_limit_by_either_client(client: Client, api: docker.DockerClient) -> None:
    script = "trap 'echo asked; exit 7' TERM; while :; do sleep 0.05; done"
    for program, flags in (
        ("sampan", ("--timeout", "500ms")),
        ("docker", ("--annotation", "io.sampan.timeout=500ms")),
    ):
        told = Told(api, "timed")
        done = client(program, ["run", "--name", "timed", *flags, images.NAME, "sh", "-c", script])
        assert (done.returncode, done.stdout) == (7, "asked\n")
        assert told.until("die")[-2:] == ["timeout", "die"]
        found = api.containers.get("timed")
        assert found.attrs["State"]["Error"] == "the container was ended after its time limit of 500ms"
        assert found.attrs["HostConfig"]["Annotations"] == {"io.sampan.timeout": "500ms"}
        found.remove()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--timeout", "5"), 'time: missing unit in duration "5"'),
        (("--timeout=-1s",), "--timeout cannot be negative"),
        (("--timeout", "1us"), "invalid timeout: 1µs is less than 1ms"),
    ],
)
def test_limits_that_are_none(client: Client, flags: tuple[str, ...], words: str) -> None:
    refused = client("sampan", ["create", *flags, images.NAME, "true"])
    assert refused.returncode != 0
    assert words in refused.stderr


# ---- signals ---------------------------------------------------------------------------------------------

# A shell cannot trap KILL and STOP, and raises or needs the faults and CHLD itself. Docker's client is
# written in Go, whose runtime takes the faults and PROF for its own.
_NOT_TRAPPED = {"KILL", "STOP", "CHLD", "SEGV", "BUS", "FPE", "ILL", "TTIN", "TTOU"}
_NOT_PASSED_ON = {"CHLD", "PIPE", "URG"}
_NUMBERS = {member.name[3:]: int(member) for member in signal.Signals if member < 32}
PASSED_ON = sorted(_NUMBERS[name] for name in _NUMBERS.keys() - _NOT_TRAPPED - _NOT_PASSED_ON - {"PROF"})
LISTEN = (
    "mkfifo /tmp/fifo; "
    + "".join(f"trap 'echo {number}' {number}; " for number in (*PASSED_ON, 13, 23, 37))
    + "echo ready; while :; do read -t 1 line <&3; done 3<>/tmp/fifo"
)


def line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    ready, _, _ = select.select((process.stdout,), (), (), PATIENCE / 4)
    assert ready, "nothing is said"
    return process.stdout.readline()


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("init", [(), ("--init",)])
def test_every_signal_arrives(
    api: docker.DockerClient, environment: dict[str, str], program: str, init: tuple[str, ...]
) -> None:
    arguments = ["run", "--rm", "--name", "hears", *init, images.NAME, "sh", "-c", LISTEN]
    process = subprocess.Popen(
        [*PROGRAMS[program], *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment,
        bufsize=0,
    )
    try:
        assert line(process) == b"ready\n"
        for number in (*PASSED_ON, 37):
            for name in _NOT_PASSED_ON:
                os.kill(process.pid, _NUMBERS[name])
            os.kill(process.pid, number)
            assert line(process) == b"%d\n" % number, number
        api.containers.get("hears").kill()
        assert process.wait(PATIENCE) == 137
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(docker.errors.NotFound):
            api.containers.get("hears").remove(force=True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_signals_that_are_not_to_be_passed_on(
    api: docker.DockerClient, environment: dict[str, str], program: str
) -> None:
    arguments = ["run", "--rm", "--name", "deaf", "--sig-proxy=false", images.NAME, "sh", "-c", LISTEN]
    process = subprocess.Popen(
        [*PROGRAMS[program], *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        bufsize=0,
        # Docker's client, too, goes on ignoring what it finds ignored, as under nohup.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    try:
        assert line(process) == b"ready\n"
        told = Told(api, "deaf")
        os.kill(process.pid, signal.SIGHUP)
        process.wait(PATIENCE)
        api.containers.get("deaf").kill()
        assert told.until("die") == ["kill", "die"]
    finally:
        process.kill()
        process.wait()


def test_init_reaps_what_others_leave(make: Make) -> None:
    container = make(FOREVER, name="reaps", init=True)
    container.exec_run(["sh", "-c", "(sh -c 'true' &) ; true"])
    code, output = container.exec_run(["ps", "-o", "pid,args"])
    assert code == 0
    assert output.decode().splitlines()[1].split() == ["1", "init"]
    code, output = container.exec_run(
        ["sh", "-c", "(sh -c 'exit 0' &); while ps -o stat | grep -q ^Z; do :; done; echo none"]
    )
    assert (code, output) == (0, b"none\n")


def test_who_ignores_the_stop_signal_is_killed_in_the_end(
    client: Client, api: docker.DockerClient, make: Make
) -> None:
    container = make(["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"], name="stubborn")
    told = Told(api, "stubborn")
    assert client("docker", ["stop", "-t", "1", "stubborn"]).returncode == 0
    found = []
    for action, attributes in told:
        found.append(f"{action} {attributes.get('signal', '')}".strip())
        if action == "stop":
            break
    assert found == ["kill 15", "kill 9", "die", "stop"]
    container.reload()
    assert container.attrs["State"]["ExitCode"] == 137


def test_inspect_of_a_policy_that_docker_lacks_does_not_trouble_its_client(
    client: Client, api: docker.DockerClient
) -> None:
    policy = "unless-stopped,on-unhealthy"
    assert (
        client("docker", ["create", "--name", "own", "--restart", policy, images.NAME, "true"]).returncode
        == 0
    )
    try:
        shown = json.loads(client("docker", ["inspect", "own"]).stdout)[0]
        assert shown["HostConfig"]["RestartPolicy"] == {"Name": policy, "MaximumRetryCount": 0}
        assert api.containers.get("own").attrs["HostConfig"]["RestartPolicy"]["Name"] == policy
    finally:
        api.containers.get("own").remove()
