from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sampan.daemon.directives import BY_KEY, REFUSED, TABLE, WITHOUT_EFFECT
from sampan.daemon.options import Options, parse, reloaded, settle
from sampan.errors import InvalidArgument

# What dockerd 28 documents for daemon.json on Linux.
_WORDS = """
allow-nondistributable-artifacts api-cors-header authorization-plugins bip bip6 bridge
bridge-accept-fwmark builder cdi-spec-dirs cgroup-parent containerd containerd-namespace
containerd-plugin-namespace cpu-rt-period cpu-rt-runtime data-root debug default-address-pools
default-cgroupns-mode default-gateway default-gateway-v6 default-ipc-mode default-network-opts
default-runtime default-shm-size default-ulimits dns dns-opts dns-search exec-opts exec-root
experimental features fixed-cidr fixed-cidr-v6 group host-gateway-ip hosts http-proxy https-proxy
icc init init-path insecure-registries ip ip-forward ip-masq ip6tables iptables ipv6 labels
live-restore log-driver log-format log-level log-opts max-concurrent-downloads
max-concurrent-uploads max-download-attempts metrics-addr mtu no-new-privileges no-proxy
node-generic-resources oom-score-adjust pidfile proxies raw-logs registry-mirrors runtimes
seccomp-profile selinux-enabled shutdown-timeout storage-driver storage-opts
swarm-default-advertise-addr tls tlscacert tlscert tlskey tlsverify userland-proxy
userland-proxy-path userns-remap
"""
DOCKERS_KEYS = _WORDS.split()


class Settings:
    """A settings file in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "daemon.json"

    def write(self, document: Any) -> None:
        text = document if isinstance(document, str) else json.dumps(document)
        self.path.write_text(text)

    def settle(self, document: Any, *flags: str) -> Options:
        self.write(document)
        return settle(parse(["--config-file", str(self.path), *flags]))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path)


def test_every_key_of_dockers_has_a_place() -> None:
    assert [key for key in DOCKERS_KEYS if key not in {*BY_KEY, *WITHOUT_EFFECT, *REFUSED}] == []
    assert not set(BY_KEY) & set(WITHOUT_EFFECT)
    assert not set(BY_KEY) & set(REFUSED)


def test_a_file_and_flags_are_merged(settings: Settings, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    options = settings.settle(
        {
            "debug": True,
            "labels": ["a=b"],
            "default-shm-size": "1g",
            "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 10, "Hard": 20}},
            "log-opts": {"max-size": "1m"},
            "dns": ["192.0.2.1"],
            "runtimes": {"other": {"path": "/x/y", "runtimeArgs": ["--a"]}},
            "default-runtime": "other",
            "seccomp-profile": str(profile),
        },
        *("--data-root", "/somewhere", "--init", "-H", "tcp://127.0.0.1:1", "-H", "fd://"),
    )
    engine = options.engine
    assert (options.log_level, engine.debug, engine.init) == ("debug", True, True)
    assert engine.labels == ("a=b",)
    assert engine.shm_size == 1 << 30
    assert engine.ulimits == {"nofile": (10, 20)}
    assert engine.log_options == {"max-size": "1m"}
    assert engine.dns == ("192.0.2.1",)
    assert engine.runtimes == {"other": ("/x/y", "--a")}
    assert engine.default_runtime == "other"
    assert engine.seccomp_profile == '{"defaultAction": "SCMP_ACT_ALLOW"}'
    assert options.data_root == "/somewhere"
    assert options.hosts == ("tcp://127.0.0.1:1", "fd://")
    assert options.warnings == ()


def test_flags_of_several_values() -> None:
    line = parse(
        [
            *("--default-ulimit", "nofile=1:2", "--default-ulimit", "nproc=7"),
            *("--add-runtime", "other=/x", "--log-opt", "a=b", "--debug=false", "--default-shm-size", "8k"),
        ]
    )
    assert line.flags == {
        "default-ulimits": {"nofile": (1, 2), "nproc": (7, 7)},
        "runtimes": {"other": ("/x",)},
        "log-opts": {"a": "b"},
        "debug": False,
        "default-shm-size": 8 << 10,
    }


@pytest.mark.parametrize(
    ("document", "flags", "message"),
    [
        ({"foo": 1}, (), "the following directives don't match any configuration option: foo"),
        (
            {"debug": True, "labels": ["a=b"]},
            ("--debug=false", "--label", "c=d"),
            "the following directives are specified both as a flag and in the configuration file: "
            "labels: (from flag: [c=d], from file: [a=b]), debug: (from flag: false, from file: true)",
        ),
        ({"debug": "x"}, (), 'debug: expected true or false, not "x"'),
        ('{"debug": tr', (), "Expecting value: line 1 column 11 (char 10)"),
        ("[]", (), "expected an object of settings, not []"),
        ({"labels": ["a"]}, (), "bad attribute format: a; use KEY=VALUE"),
        ({"log-level": "zzz"}, (), "invalid log-level 'zzz': use one of"),
        ({"default-shm-size": "1x"}, (), "default-shm-size: invalid size: '1x'"),
        ({"dns": "x"}, (), 'dns: expected a list of texts, not "x"'),
        ({"oom-score-adjust": 1.5}, (), "oom-score-adjust: expected a whole number, not 1.5"),
        ({"log-opts": {"a": 1}}, (), "log-opts: expected a text, not 1"),
        ({"runtimes": {"a": {}}}, (), 'runtimes: runtime "a" has no path'),
        (
            {"default-ulimits": {"nofile": {"Soft": 2, "Hard": 1}}},
            (),
            "default-ulimits: ulimit nofile: soft limit must be less than or equal to hard limit: 2 > 1",
        ),
        ({"default-runtime": "x"}, (), "specified default runtime 'x' does not exist"),
        ({"fixed-cidr-v6": "fd00::/64"}, (), "fixed-cidr-v6 needs ipv6"),
        ({"ipv6": True, "fixed-cidr-v6": "10.0.0.0/8"}, (), "10.0.0.0/8 is no IPv6 subnet with room"),
        ({"fixed-cidr": "10.0.0.0/8"}, (), "fixed-cidr needs bip"),
        ({"bip": "10.0.0.1/24", "fixed-cidr": "10.0.1.0/25"}, (), "leaves no room in 10.0.0.0/24"),
        ({"bip": "here"}, (), "invalid bip"),
        ({"mtu": 60}, (), "invalid mtu: 60"),
    ],
)
def test_what_is_wrong_is_said(
    settings: Settings, document: Any, flags: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        settings.settle(document, *flags)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_has_no_effect_is_said_unless_it_is_so_anyway(settings: Settings) -> None:
    options = settings.settle({"ip": "192.0.2.1", "live-restore": True, "icc": True})
    assert options.warnings == ("ip has no effect: the networks have no such setting",)
    assert settings.settle({"live-restore": False}).warnings == (
        "live-restore has no effect: containers always outlive the daemon",
    )


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        settle(parse(["--config-file", str(tmp_path / "none")]))


@pytest.mark.parametrize("flag", [["--bogus"], ["--userns", "x"], ["--label", "a"], ["--log-opt", "a"]])
def test_a_wrong_flag_ends_the_program(flag: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(flag)
    assert caught.value.code == 2
    assert flag[0] in capsys.readouterr().err


def test_a_reload_tells_what_has_to_wait(settings: Settings) -> None:
    before = settings.settle({"debug": True, "group": "a"})
    settings.write({"labels": ["x=y"], "group": "b", "exec-root": "/elsewhere"})
    after, waiting = reloaded(before, parse(["--config-file", str(settings.path)]))
    assert after.engine.labels == ("x=y",)
    assert not after.engine.debug
    assert waiting == ("exec-root", "group")


def test_the_table_is_sound() -> None:
    assert len(BY_KEY) == len(TABLE)
    for directive in TABLE:
        assert all(flag.startswith("-") for flag in directive.flags)
        assert not directive.choices or directive.default in directive.choices
