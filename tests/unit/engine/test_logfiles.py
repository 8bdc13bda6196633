"""What log options mean, and how wrong ones are refused: the words are dockerd's."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sampan import errors
from sampan.engine import logfiles
from sampan.engine.model import Container, ContainerConfig, HostConfig, LogConfig
from sampan.errors import Failure, InvalidArgument

FAILED = "failed to initialize logging driver: "


def container(log: LogConfig, **config: object) -> Container:
    return Container(
        id="f00d" * 16,
        name="web",
        created=1_700_000_000_000_000_000,
        path="sh",
        args=("-c", "true"),
        image_id="sha256:" + "ab" * 32,
        config=replace(ContainerConfig(image="busybox:1"), **config),
        host=HostConfig(log_config=log),
    )


@pytest.mark.parametrize(
    ("driver", "given", "words"),
    [
        ("odd", "", 'error looking up logging plugin odd: plugin "odd" not found'),
        ("etwlogs", "", 'error looking up logging plugin etwlogs: plugin "etwlogs" not found'),
        ("awslogs", "", "--log-driver awslogs is not offered: it needs Amazon's client library"),
        ("json-file", "x=1", "unknown log opt 'x' for json-file log driver"),
        ("local", "x=1", "unknown log opt 'x' for log driver local"),
        ("syslog", "x=1", "unknown log opt 'x' for syslog log driver"),
        ("journald", "x=1", "unknown log opt 'x' for journald log driver"),
        ("fluentd", "x=1", "unknown log opt 'x' for fluentd log driver"),
        ("gelf", "x=1", "gelf-address is a required parameter"),
        ("gelf", "gelf-address=udp://a:1 x=1", "unknown log opt 'x' for gelf log driver"),
        ("json-file", "mode=odd", "logger: logging mode not supported: odd"),
        (
            "json-file",
            "max-buffer-size=1m",
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            "json-file",
            "mode=non-blocking max-buffer-size=x",
            "error parsing option max-buffer-size: invalid size: 'x'",
        ),
        ("json-file", "max-size=x", FAILED + "invalid size: 'x'"),
        ("json-file", "max-size=-5", FAILED + "invalid size: '-5'"),
        ("json-file", "max-file=0", FAILED + "max-file cannot be less than 1"),
        ("json-file", "max-file=x", FAILED + 'strconv.Atoi: parsing "x": invalid syntax'),
        ("json-file", "compress=x", FAILED + 'strconv.ParseBool: parsing "x": invalid syntax'),
        (
            "json-file",
            "compress=true max-file=1",
            FAILED + "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        ("local", "max-size=x", FAILED + "invalid value for max-size: x: invalid size: 'x'"),
        ("local", "max-file=0", FAILED + "compression cannot be enabled when max file count is 1"),
        (
            "local",
            "compress=x",
            FAILED + 'error reading compress log option: strconv.ParseBool: parsing "x": invalid syntax',
        ),
        ("json-file", "labels-regex=[", "error parsing regexp: missing closing ]: `[`"),
        ("json-file", "env-regex=(", "error parsing regexp: missing closing ): `(`"),
        ("syslog", "cache-disabled=x", "invalid value for option cache-disabled: x"),
        ("syslog", "syslog-address=foo", "syslog-address should be in form proto://address, got foo"),
        ("syslog", "syslog-address=foo://x", "syslog-address should be in form proto://address, got foo://x"),
        ("syslog", "syslog-address=unix:///nope", "stat /nope: no such file or directory"),
        ("syslog", "syslog-facility=x", "invalid syslog facility"),
        ("syslog", "syslog-format=x", "Invalid syslog format"),
        ("gelf", "gelf-address=foo", "gelf-address should be in form proto://address, got foo"),
        ("gelf", "gelf-address=udp://a", "gelf: please provide gelf-address as proto://host:port"),
        (
            "gelf",
            "gelf-address=udp://a:1 gelf-compression-type=x",
            'unknown value "x" for log opt "gelf-compression-type" for gelf log driver',
        ),
        (
            "gelf",
            "gelf-address=udp://a:1 gelf-compression-level=20",
            'unknown value "20" for log opt "gelf-compression-level" for gelf log driver',
        ),
        ("gelf", "gelf-address=tcp://a:1 gelf-compression-type=gzip", "compression is only supported on UDP"),
        (
            "gelf",
            "gelf-address=udp://a:1 gelf-tcp-max-reconnect=3",
            '"gelf-tcp-max-reconnect" is only valid for TCP',
        ),
        (
            "fluentd",
            "fluentd-address=foo://x:1",
            "invalid fluentd-address foo://x:1: address foo://x:1: too many colons in address",
        ),
        ("fluentd", "fluentd-buffer-limit=x", "invalid size: 'x'"),
        ("fluentd", "fluentd-async=x", 'strconv.ParseBool: parsing "x": invalid syntax'),
        ("fluentd", "fluentd-retry-wait=x", 'time: invalid duration "x"'),
        ("fluentd", "fluentd-max-retries=x", 'strconv.ParseUint: parsing "x": invalid syntax'),
    ],
)
def test_what_is_refused(driver: str, given: str, words: str) -> None:
    options = dict(pair.split("=", 1) for pair in given.split())
    with pytest.raises(Failure) as refused:
        logfiles.check(LogConfig(type=driver, config=options))
    assert str(refused.value) == words


@pytest.mark.parametrize(
    ("driver", "given"),
    [
        ("none", "x=1"),
        ("json-file", "max-size=1k max-file=2 compress=true labels=a env=b tag={{.Name}} mode=non-blocking"),
        ("local", "max-file=1 compress=false"),
        ("syslog", "syslog-address=tcp+tls://host:1 syslog-format=rfc5424micro syslog-facility=local7"),
        ("syslog", "cache-disabled=true cache-max-size=1m cache-max-file=1"),
        ("fluentd", "fluentd-address=unix:///x fluentd-async=true fluentd-request-ack=true"),
        ("gelf", "gelf-address=udp://[::1]:12201 gelf-compression-type=zlib gelf-compression-level=-1"),
        ("journald", "tag=x labels-regex=^a"),
    ],
)
def test_what_is_taken(driver: str, given: str) -> None:
    logfiles.check(LogConfig(type=driver, config=dict(pair.split("=", 1) for pair in given.split())))


def test_what_is_lacking_is_not_a_wrong_request() -> None:
    with pytest.raises(errors.NotImplemented):
        logfiles.check(LogConfig(type="splunk"))


@pytest.mark.parametrize(
    ("text", "size"), [("10m", 10_000_000), ("1.5k", 1500), ("5", 5), ("20MB", 20_000_000), ("-1", 0)]
)
def test_log_sizes(text: str, size: int) -> None:
    assert logfiles.parse_size(text) == size


@pytest.mark.parametrize(
    ("driver", "given", "limits"),
    [
        ("json-file", {}, (50_000_000, 5, False)),
        ("json-file", {"max-size": "-1", "max-file": "2"}, (0, 2, False)),
        ("local", {}, (20 << 20, 5, True)),
        ("local", {"max-size": "1m", "max-file": "1"}, (1 << 20, 1, False)),
        ("gelf", {"gelf-address": "udp://a:1", "cache-max-size": "1m"}, (1 << 20, 5, True)),
    ],
)
def test_limits_of_the_local_file(driver: str, given: dict[str, str], limits: tuple[int, int, bool]) -> None:
    copy = logfiles.local_copy(container(LogConfig(type=driver, config=given)), "/log")
    assert copy is not None
    assert (copy.max_size, copy.max_files, copy.compressed) == limits


def test_who_waits_for_a_collector() -> None:
    given = {"gelf-address": "udp://a:1"}
    for more, patient in (({}, True), ({"mode": "blocking"}, True), ({"mode": "non-blocking"}, False)):
        copy = logfiles.local_copy(container(LogConfig(type="gelf", config={**given, **more})), "/log")
        assert copy is not None
        assert copy.patient is patient
    assert logfiles.local_copy(container(LogConfig(type="none")), "/log") is None


def test_attributes_of_records() -> None:
    options = {"env": "A,Z", "env-regex": "^C", "labels": "x", "tag": "{{.Name}}/{{.ID}}"}
    log = LogConfig(type="json-file", config=options)
    made = container(log, env=("A=1", "B=2", "C=3"), labels={"x": "y", "z": ""})
    expected = {"A": "1", "C": "3", "x": "y", "tag": "web/f00df00df00d"}
    assert logfiles.log_attributes(made) == expected
    copy = logfiles.local_copy(made, "/log")
    assert copy is not None
    assert copy.attributes == '{"A":"1","C":"3","tag":"web/f00df00df00d","x":"y"}'
    assert logfiles.log_attributes(container(LogConfig(type="json-file"))) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "{{.X}}",
            'template: log-tag:1:2: executing "log-tag" at <.X>: '
            "can't evaluate field X in type *logger.Info",
        ),
        ("{{", "template: log-tag:1: unclosed action"),
    ],
)
def test_tags_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        logfiles.check_tag(container(LogConfig(type="json-file", config={"tag": text})))
    assert str(refused.value) == FAILED + words
