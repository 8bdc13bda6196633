"""Commit's configuration and the paths of archives, as values."""

from __future__ import annotations

import pytest

from sampan.engine.archives import clean
from sampan.engine.commits import merged, run_config
from sampan.engine.model import ContainerConfig, HealthConfig
from sampan.errors import InvalidArgument
from sampan.spec.image import RunConfig


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b", "/a/b"),
        ("a//b", "/a/b"),
        ("a/", "/a/"),
        ("a/.", "/a/."),
        ("a/./", "/a/"),
        ("/", "/"),
        ("/.", "/."),
        ("//x", "/x"),
        ("../../x", "/x"),
        ("a/../../..", "/"),
    ],
)
def test_a_path_is_clean_and_keeps_what_its_end_says(path: str, expected: str) -> None:
    assert clean(path) == expected


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_no_path(path: str) -> None:
    with pytest.raises(InvalidArgument):
        clean(path)


def test_what_is_left_open_comes_from_the_container() -> None:
    below = RunConfig(
        user="app",
        env=("A=1", "B=2"),
        cmd=("sh",),
        entrypoint=("init",),
        exposed_ports=("80/tcp",),
        labels={"x": "1", "y": "1"},
        volumes=("/v",),
        working_dir="/w",
        stop_signal="INT",
        healthcheck={"Test": ["CMD", "true"], "Retries": 3},
    )
    assert merged(RunConfig(), below) == below
    wanted = RunConfig(
        env=("B=3", "C=4"), labels={"y": "2"}, exposed_ports=("90/tcp",), healthcheck={"Interval": 5}
    )
    found = merged(wanted, below)
    assert found.env == ("B=3", "C=4", "A=1")
    assert found.labels == {"x": "1", "y": "2"}
    assert found.exposed_ports == ("90/tcp", "80/tcp")
    assert found.healthcheck == {"Test": ["CMD", "true"], "Retries": 3, "Interval": 5}


def test_an_entrypoint_of_its_own_keeps_the_container_s_command_away() -> None:
    below = RunConfig(cmd=("sh",), entrypoint=("init",))
    assert merged(RunConfig(entrypoint=("mine",)), below).cmd is None
    assert merged(RunConfig(cmd=("mine",)), below) == RunConfig(cmd=("mine",), entrypoint=("init",))
    assert merged(RunConfig(entrypoint=()), below).entrypoint == ()


def test_the_part_of_a_container_s_configuration_that_an_image_has() -> None:
    config = ContainerConfig(
        hostname="gone", cmd=("x",), exposed_ports={"80/tcp": {}}, healthcheck=HealthConfig(retries=2)
    )
    assert run_config(config) == RunConfig(cmd=("x",), exposed_ports=("80/tcp",), healthcheck={"Retries": 2})
