"""Log drivers against real collectors, and what `docker logs` says meanwhile."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests import collectors
from tests.collectors import Collector, collecting
from tests.e2e.conftest import Client

pytestmark = [pytest.mark.root, pytest.mark.e2e]

NAME = "logdrivers"
RFC5424 = r"(?:Z|[+-]\d\d:\d\d) [^ ]+ t/logdrivers \d+ t/logdrivers - {}"
SPEAK = "echo one; echo two >&2; printf three"

Run = Callable[..., str]


@pytest.fixture
def run(client: Client) -> Iterator[Run]:
    """Run a container to its end with a log driver; what `docker logs` says of it then."""

    def start(*options: str, script: str = SPEAK, code: int = 0) -> str:
        flags = [word for option in options for word in ("--log-opt", option)]
        driver, *rest = flags[1::2]
        command = ["run", "--name", NAME, "--log-driver", driver]
        command += [word for option in rest for word in ("--log-opt", option)]
        done = client("docker", [*command, "busybox", "sh", "-c", script])
        assert done.returncode == code, done.stderr
        return client("docker", ["logs", NAME]).stdout if not code else done.stderr

    yield start
    client("docker", ["rm", "-f", NAME])


def lines(collector: Collector) -> list[str]:
    if collector.kind in ("tcp", "unix"):
        return collector.received.decode().splitlines()
    return [datagram.decode().removesuffix("\n") for datagram in collector.datagrams]


@pytest.mark.parametrize(
    ("kind", "form", "pattern"),
    [
        ("udp", "", r"<{}>\w{{3}} [ \d]\d \d\d:\d\d:\d\d t/logdrivers\[\d+\]: {}"),
        ("tcp", "rfc3164", r"<{}>\w{{3}} [ \d]\d \d\d:\d\d:\d\d [^ ]+ t/logdrivers\[\d+\]: {}"),
        (
            "unix",
            "rfc5424",
            r"<{}>1 [-\d]+T[:\d]+(?:Z|[+-]\d\d:\d\d) [^ ]+ t/logdrivers \d+ t/logdrivers - {}",
        ),
        (
            "unixgram",
            "rfc5424micro",
            r"<{}>1 [-\d]+T[:\d]+\.\d{{6}}(?:Z|[+-]\d\d:\d\d) [^ ]+ t/logdrivers \d+ t/logdrivers - {}",
        ),
    ],
)
def test_syslog(run: Run, kind: str, form: str, pattern: str) -> None:
    with collecting(kind) as collector:
        options = [
            f"syslog-address={kind}://{collector.address}",
            "syslog-facility=local3",
            "tag=t/{{.Name}}",
        ]
        options += [f"syslog-format={form}"] if form else []
        assert run("syslog", *options) == "one\nthree"
        collector.wait(lambda c: len(lines(c)) >= 3)
        informational, error = 19 << 3 | 6, 19 << 3 | 3
        wanted = {(informational, "one"), (error, "two"), (informational, "three")}
        for line in lines(collector):
            (found,) = [(p, text) for p, text in wanted if re.fullmatch(pattern.format(p, text), line)]
            wanted.remove(found)
        assert not wanted


def test_syslog_over_tls_is_framed_by_lengths(run: Run, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate")
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    made = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with collecting("tcp", tls=context) as collector:
        options = [f"syslog-address=tcp+tls://{collector.address}", "syslog-format=rfc5424"]
        run("syslog", *options, f"syslog-tls-ca-cert={certificate}", script="echo one; echo two")
        collector.wait(lambda c: c.received.count(b"\n") == 2)
        size, _, rest = collector.received.partition(b" ")
        assert rest[: int(size)].endswith(b" - one\n")
        assert rest[int(size) :].endswith(b" - two\n")


def test_gelf_over_udp_is_compressed_and_cut_into_chunks(run: Run) -> None:
    with collecting("udp") as collector:
        address = f"gelf-address=udp://{collector.address}"
        random = "echo; echo short; head -c 9000 /dev/urandom | base64 -w0; echo; echo bad >&2"
        run("gelf", address, "tag={{.ImageName}}", "env=A", script=random)
        collector.wait(lambda c: len(collectors.gelf_messages(c)) == 3)
        assert any(datagram[:2] == b"\x1e\x0f" for datagram in collector.datagrams)
        found = {message["short_message"][:5]: message for message in collectors.gelf_messages(collector)}
        short, bad = found.pop("short"), found.pop("bad")
        (long,) = found.values()
        assert len(long["short_message"]) == 12000
        assert (short["version"], short["level"], bad["level"]) == ("1.1", 6, 3)
        assert short["_container_name"] == NAME
        assert short["_tag"] == short["_image_name"] == "busybox"
        assert short["_command"].startswith("sh -c echo; ")
        assert abs(short["timestamp"] - bad["timestamp"]) < 60


def test_gelf_over_tcp_is_ended_by_zeros(run: Run) -> None:
    with collecting("tcp") as collector:
        run("gelf", f"gelf-address=tcp://{collector.address}", script="echo one; echo two")
        collector.wait(lambda c: c.received.count(b"\0") == 2)
        documents = [json.loads(text) for text in collector.received.split(b"\0")[:-1]]
        assert [document["short_message"] for document in documents] == ["one", "two"]


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_fluentd(run: Run, kind: str) -> None:
    with collecting(kind) as collector:

        def acknowledge(data: bytes) -> bytes:
            return msgspec.msgpack.encode({"ack": msgspec.msgpack.decode(data)[2]["chunk"]})

        collector.answer = acknowledge
        options = [f"fluentd-address={kind}://{collector.address}", "fluentd-request-ack=true"]
        run("fluentd", *options, "fluentd-sub-second-precision=true", "tag=app.{{.Name}}")

        def events(c: Collector) -> list[list[Any]]:
            return [event for message in collectors.forwarded(c.received) for event in message[1]]

        collector.wait(lambda c: len(events(c)) == 3)
        assert {message[0] for message in collectors.forwarded(collector.received)} == {f"app.{NAME}"}
        said = {
            (record["source"], record["log"], record.get("partial_message"))
            for _, record in events(collector)
        }
        assert said == {("stdout", "one", None), ("stderr", "two", None), ("stdout", "three", "true")}
        assert all(record["container_name"] == f"/{NAME}" for _, record in events(collector))
        assert all(time.code == 0 and len(time.data) == 8 for time, _ in events(collector))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("syslog", "syslog-address=tcp://127.0.0.1:1"),
            "dial tcp 127.0.0.1:1: connect: connection refused",
        ),
        (
            ("gelf", "gelf-address=tcp://127.0.0.1:1"),
            "gelf: cannot connect to GELF endpoint: 127.0.0.1:1 "
            "dial tcp 127.0.0.1:1: connect: connection refused",
        ),
        (
            ("fluentd", "fluentd-address=unix:///nope"),
            "dial unix /nope: connect: no such file or directory",
        ),
    ],
)
def test_a_collector_that_is_not_there_keeps_a_container_from_starting(
    run: Run, options: tuple[str, ...], words: str
) -> None:
    # Docker's client takes these words for a program that is not there.
    said = run(*options, code=127 if "no such file" in words else 125)
    prefix = "docker: Error response from daemon: failed to create task for container: "
    assert said.startswith(f"{prefix}failed to initialize logging driver: {words}\n")


def test_a_collector_that_comes_later_gets_everything(run: Run, client: Client) -> None:
    with collecting("tcp") as first:
        port = first.port
    run("fluentd", f"fluentd-address=127.0.0.1:{port}", "fluentd-async=true", "fluentd-retry-wait=10ms")
    with collecting("tcp", port=port) as collector:
        collector.wait(lambda c: sum(len(m[1]) for m in collectors.forwarded(c.received)) == 3)


def test_what_a_collector_did_not_take_is_removed_with_its_container(run: Run, client: Client) -> None:
    with collecting("tcp") as first:
        port = first.port
    run("fluentd", f"fluentd-address=127.0.0.1:{port}", "fluentd-async=true")
    assert client("docker", ["rm", NAME]).returncode == 0


def test_the_log_of_a_container_that_removes_itself_is_sent_first(client: Client) -> None:
    with collecting("tcp") as collector:
        command = [
            "run",
            "--rm",
            "--log-driver",
            "syslog",
            "--log-opt",
            f"syslog-address=tcp://{collector.address}",
        ]
        assert client("docker", [*command, "busybox", "seq", "5000"]).returncode == 0
        collector.wait(lambda c: c.received.count(b"\n") == 5000)


def test_compressed_files_are_read_as_if_they_were_not(run: Run, client: Client, daemon: Any) -> None:
    said = run("local", "max-size=20k", "max-file=5", script="seq 1000")
    (folder,) = Path(daemon.root, "data/containers").glob("*")

    def packed() -> bool:
        return sorted(path.suffix for path in folder.glob("*-json.log.*")) == [".gz"] * 3

    for _ in range(100):
        if packed():
            break
        client("docker", ["version"])
    assert packed(), list(folder.iterdir())
    assert said.split() == list(map(str, range(1, 1001)))
    assert client("docker", ["logs", NAME]).stdout == said
    for count in (0, 1, 10, 500, 999, 1000, 2000):
        tail = client("docker", ["logs", "--tail", str(count), NAME]).stdout.split()
        assert tail == said.split()[len(said.split()) - count :] if count <= 1000 else tail == said.split()
