"""What the flags of create mean: mounts of others, propagation, what a host lacks, security options."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.engine import FACTS, World

from sampan import errors
from sampan.engine import mounts, propagation, resources, security
from sampan.engine.host import ALL_LIMITS, HostFacts
from sampan.engine.model import (
    BindOptions,
    ContainerConfig,
    DeviceMapping,
    HostConfig,
    ImageOptions,
    Mount,
    MountPoint,
    NetworkingConfig,
    ThrottleDevice,
    VolumeOptions,
    WeightDevice,
)
from sampan.errors import Failure, InvalidArgument, NotFound
from sampan.sandbox.cgroups import Features
from sampan.spec import platform
from sampan.spec.image import RunConfig


@pytest.fixture(autouse=True)
def base(world: World) -> None:
    world.catalog.add("base", RunConfig(cmd=("sleep",)))


async def make(world: World, **host: Any) -> str:
    config = ContainerConfig(image="base", cmd=("sleep",))
    return (await world.containers.create(None, config, HostConfig(**host), NetworkingConfig())).id


def facts(**changes: Any) -> HostFacts:
    return dataclasses.replace(FACTS, **changes)


class TestVolumesFrom:
    async def test_mounts_are_taken_over_and_replaced_by_ones_own(self, world: World) -> None:
        source = await make(world, binds=("data:/data", "/srv:/srv:ro", "/one"), tmpfs={"/t": ""})
        web = await make(world, volumes_from=(f"{source[:12]}:ro",), binds=("/etc:/srv",))
        points = {point.destination: point for point in world.containers.get(web).mounts}
        assert set(points) == {"/data", "/srv", "/one"}
        assert (points["/data"].name, points["/data"].rw, points["/data"].origin) == ("data", False, "from")
        assert (points["/srv"].source, points["/srv"].rw) == ("/etc", True)
        assert not points["/one"].anonymous
        assert points["/one"].no_copy

    async def test_anonymous_volumes_of_another_stay_when_the_taker_goes(self, world: World) -> None:
        source = await make(world, binds=("/one",))
        web = await make(world, volumes_from=(source,))
        await world.containers.remove(web, volumes=True)
        assert len(world.volumes.there) == 1

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "volumes-from specification cannot be an empty string"),
            ("nope", "No such container: nope"),
            (":ro", 'invalid name or ID supplied: ""'),
            ("a:foo", "invalid mode: foo"),
            ("a:ro,nocopy", "invalid mode: ro,nocopy"),
            ("a:rshared", "invalid mode: rshared"),
            ("a:z:ro", "invalid mode: z:ro"),
        ],
    )
    async def test_refusals(self, world: World, text: str, words: str) -> None:
        with pytest.raises(InvalidArgument) as refused:
            await make(world, volumes_from=(text,))
        assert str(refused.value) == words


class TestMounts:
    async def test_an_image_without_layers_has_nothing_to_mount(self, world: World) -> None:
        options = ImageOptions(subpath="etc")
        mount = Mount(type="image", source="base", target="/i", image_options=options)
        point = mounts.parse_mount(mount)
        assert (point.type, point.name, point.subpath, point.rw) == ("image", "base", "etc", False)
        with pytest.raises(InvalidArgument, match="image base has no layers to mount"):
            await make(world, mounts=(mount,))
        assert not world.snapshots.there

    @pytest.mark.parametrize(
        ("mount", "words"),
        [
            (Mount(type="image", target="/i"), "field Source must not be empty"),
            (
                Mount(type="image", source="base", target="/i", image_options=ImageOptions(subpath="../x")),
                "subpath must be a relative path within the volume",
            ),
            (
                Mount(type="volume", source="v1", target="/v", volume_options=VolumeOptions(subpath="/x")),
                "subpath must be a relative path within the volume",
            ),
            (
                Mount(
                    type="volume", source="v1", target="/v", volume_options=VolumeOptions(subpath="a/../..")
                ),
                "subpath must be a relative path within the volume",
            ),
            (
                Mount(type="volume", target="/v", volume_options=VolumeOptions(subpath="x")),
                "must not set Subpath when using anonymous volumes",
            ),
            (Mount(type="npipe", source="x", target="/v"), "mount type unknown"),
        ],
    )
    def test_refusals(self, mount: Mount, words: str) -> None:
        with pytest.raises(InvalidArgument, match=words):
            mounts.parse_mount(mount)

    async def test_a_missing_image_is_no_missing_container_image(self, world: World) -> None:
        with pytest.raises(InvalidArgument, match="No such image: nosuch"):
            await make(world, mounts=(Mount(type="image", source="nosuch", target="/i"),))

    def test_a_subpath_is_never_filled_from_the_image(self) -> None:
        options = VolumeOptions(subpath="a/./b")
        point = mounts.parse_mount(Mount(type="volume", source="v1", target="/v", volume_options=options))
        assert point.no_copy

    async def test_a_bind_with_the_engines_own_directory_follows_it(self, world: World) -> None:
        root = world.settings.paths.data
        web = await make(world, binds=(f"{root}:/r", "/:/host", "/etc:/e"))
        assert [point.propagation for point in world.containers.get(web).mounts] == [
            "rslave",
            "rslave",
            "rprivate",
        ]
        with pytest.raises(InvalidArgument, match='must use either propagation mode "rslave" or "rshared"'):
            await make(world, binds=(f"{root}:/r:shared",))

    async def test_a_source_is_made_when_the_mount_says_so(self, world: World, tmp_path: Path) -> None:
        options = BindOptions(create_mountpoint=True)
        mount = Mount(type="bind", source=f"{tmp_path}/new/one", target="/n", bind_options=options)
        await world.containers.start(await make(world, mounts=(mount,)))
        assert (tmp_path / "new/one").is_dir()


class TestPropagation:
    @pytest.mark.parametrize("kind", ["shared", "rshared", "slave", "rslave"])
    def test_a_source_on_a_private_mount_has_nothing_to_pass_on(self, kind: str) -> None:
        point = MountPoint(type="bind", source="/proc/sys", destination="/x", propagation=kind)
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        fields = next(line.split(" ") for line in lines if line.split(" ")[4] == "/proc")
        if fields[6] != "-":
            pytest.skip("this host's /proc is shared")
        with pytest.raises(
            InvalidArgument, match="path /proc/sys is mounted on /proc but it is not a shared"
        ):
            propagation.settled(point, daemon_root="/var/lib/x")

    def test_the_engines_own_directory_is_private_then(self) -> None:
        point = MountPoint(type="bind", source="/proc", destination="/x", propagation="rslave")
        assert propagation.settled(point, daemon_root="/proc/x") in ("rprivate", "rslave")

    def test_others_are_left_alone(self) -> None:
        point = MountPoint(type="volume", source="/", destination="/x")
        assert propagation.settled(point, daemon_root="/x") == ""


class TestWhatAHostLacks:
    LIMITED = HostConfig(
        memory=64 << 20,
        memory_reservation=32 << 20,
        memory_swappiness=3,
        oom_kill_disable=True,
        cpu_shares=3,
        cpu_quota=2000,
        cpuset_cpus="0",
        pids_limit=3,
        blkio_weight=300,
        blkio_weight_device=(WeightDevice(path="/dev/nosuch", weight=3),),
        blkio_device_read_bps=(ThrottleDevice(path="/dev/nosuch", rate=3),),
        blkio_device_write_iops=(ThrottleDevice(path="/dev/nosuch", rate=3),),
    )

    def test_everything_is_discarded_with_a_warning_each(self) -> None:
        host, warnings = resources.check(self.LIMITED, facts(limits=Features()))
        assert host == HostConfig(memory_swap=-1)
        assert len(warnings) == 12
        assert all(warning.startswith("Your kernel does not support") for warning in warnings)

    def test_nothing_where_nothing_lacks(self) -> None:
        host, warnings = resources.check(self.LIMITED, facts(limits=ALL_LIMITS, swap_limit=True))
        assert host == self.LIMITED
        assert warnings == []

    @pytest.mark.parametrize(
        ("host", "words"),
        [
            ({"cpu_realtime_runtime": 5}, "Your kernel does not support CPU real-time scheduler"),
            ({"nano_cpus": 10**9}, "NanoCPUs can not be set, as your kernel does not support CPU CFS"),
        ],
    )
    def test_what_is_refused_instead(self, host: dict[str, Any], words: str) -> None:
        with pytest.raises(InvalidArgument, match=words):
            resources.check(HostConfig(**host), facts(limits=Features()))

    def test_real_time_within_its_period(self) -> None:
        with pytest.raises(InvalidArgument, match="runtime cannot be higher than cpu real-time period"):
            resources.check(HostConfig(cpu_realtime_runtime=5, cpu_realtime_period=4), facts())

    def test_devices_are_looked_for_at_the_start(self) -> None:
        rate = (ThrottleDevice(path="/dev/null", rate=7),)
        found = resources.linux_resources(HostConfig(blkio_device_read_bps=rate), [])
        assert found["blockIO"]["throttleReadBpsDevice"] == [{"major": 1, "minor": 3, "rate": 7}]
        missing = (ThrottleDevice(path="/dev/nosuch", rate=7),)
        with pytest.raises(InvalidArgument, match="stat /dev/nosuch: no such file or directory"):
            resources.linux_resources(HostConfig(blkio_device_write_bps=missing), [])

    def test_a_kernel_memory_limit_of_an_old_client(self) -> None:
        host, warnings = resources.check(HostConfig(kernel_memory=64 << 20), facts())
        assert host.kernel_memory == 0
        assert "deprecated" in warnings[0]


class TestSecurity:
    @pytest.mark.parametrize(
        ("options", "field", "value"),
        [
            (("no-new-privileges",), "no_new_privileges", True),
            (("no-new-privileges:false",), "no_new_privileges", False),
            (("writable-cgroups=true",), "writable_cgroups", True),
            (("apparmor=mine",), "apparmor", "mine"),
            (("label=disable", "label:type:x"), "labels", ("type:x",)),
            (("seccomp:unconfined",), "seccomp", "unconfined"),
            (("seccomp=builtin",), "seccomp", None),
        ],
    )
    def test_grammar(self, options: tuple[str, ...], field: str, value: object) -> None:
        assert getattr(security.parse(options), field) == value

    @pytest.mark.parametrize(
        ("option", "changes", "kind", "words"),
        [
            ("apparmor=mine", {}, InvalidArgument, "AppArmor is not enabled on this host"),
            ("label=type:x", {}, InvalidArgument, "SELinux is not enabled on this host"),
            ("label=type:x", {"selinux": True}, errors.NotImplemented, "use --security-opt label=disable"),
            ("writable-cgroups=perhaps", {}, InvalidArgument, 'invalid --security-opt 2: "writable-cgroups'),
            ("foo", {}, InvalidArgument, 'invalid --security-opt 1: "foo"'),
        ],
    )
    def test_refusals(self, option: str, changes: dict[str, Any], kind: type[Failure], words: str) -> None:
        with pytest.raises(kind, match=words):
            security.check((option,), facts(**changes))

    @pytest.mark.parametrize("option", ["apparmor=unconfined", "label=disable", "label:disable"])
    def test_doing_without_is_fine_everywhere(self, option: str) -> None:
        security.check((option,), facts())

    async def test_a_profile_of_a_host_that_has_them_is_passed_on(self, tmp_path: Path) -> None:
        world = World(str(tmp_path), facts=facts(apparmor=True))
        world.catalog.add("base", RunConfig(cmd=("sleep",)))
        web = await make(world, security_opt=("apparmor=mine",))
        await world.containers.start(web)
        task = world.store.find(web).task
        assert task is not None
        assert task.launch.spec["process"]["apparmorProfile"] == "mine"  # type: ignore[attr-defined]
        world.close()


async def test_the_cgroup_mount_is_writable_only_when_asked_for(world: World) -> None:
    for options, read_only in (((), True), (("writable-cgroups=true",), False)):
        web = await make(world, security_opt=options)
        await world.containers.start(web)
        spec = world.store.find(web).task.launch.spec  # type: ignore[union-attr]
        mount = next(mount for mount in spec["mounts"] if mount["type"] == "cgroup")
        assert ("ro" in mount["options"]) is read_only


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "1G"}, "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"),
        ({"foo": "1"}, "Unknown option foo"),
    ],
)
async def test_storage_options_are_refused(world: World, options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await make(world, storage_opt=options)
    assert str(refused.value) == words


@pytest.mark.parametrize("privileged", [False, True])
async def test_a_device_may_be_anywhere(world: World, *, privileged: bool) -> None:
    web = await make(
        world,
        privileged=privileged,
        devices=(DeviceMapping(path_on_host=os.devnull, path_in_container="/opt/x"),),
    )
    await world.containers.start(web)
    spec = world.store.find(web).task.launch.spec  # type: ignore[union-attr]
    assert "/opt/x" in {device["path"] for device in spec["linux"]["devices"]}


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (None, ""),
        (("linux", "amd64", ""), ""),
        (
            ("linux", "arm64", "v8"),
            "image with reference base was found but its platform (linux/amd64) does not match the specified "
            "platform (linux/arm64/v8)",
        ),
    ],
)
async def test_the_platform_of_an_image(
    world: World, wanted: tuple[str, str, str] | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sampan.spec.platform.own_architecture", lambda: "amd64")
    config = ContainerConfig(image="base", cmd=("sleep",))
    if words:
        with pytest.raises(NotFound) as refused:
            await world.containers.create(None, config, HostConfig(), NetworkingConfig(), platform=wanted)
        assert str(refused.value) == words
    else:
        made = await world.containers.create(None, config, HostConfig(), NetworkingConfig(), platform=wanted)
        assert made.warnings == ()


async def test_an_image_for_another_machine_is_warned_of(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sampan.spec.platform.own_architecture", lambda: "riscv64")
    config = ContainerConfig(image="base", cmd=("sleep",))
    made = await world.containers.create(None, config, HostConfig(), NetworkingConfig())
    assert made.warnings == (
        "The requested image's platform (linux/amd64) does not match the detected host platform "
        "(linux/riscv64) and no specific platform was requested",
    )


@pytest.mark.parametrize(
    ("found", "wanted", "answer"),
    [
        ("linux/arm/v6", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("linux/arm64/v8", "linux/arm64", True),
        ("windows/amd64", "linux/amd64", False),
    ],
)
def test_which_platforms_fit(found: str, wanted: str, answer: bool) -> None:
    assert platform.fits(platform.parse(found), platform.parse(wanted)) is answer
