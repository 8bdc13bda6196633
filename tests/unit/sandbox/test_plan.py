from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.linux import process as p
from sampan.sandbox import steps
from sampan.sandbox.hostmounts import Bind, DeviceDirectory, OverlayRoot
from sampan.sandbox.messages import Launch, RootFilesystem, decode_launch, encode
from sampan.sandbox.plan import compile_plan
from sampan.spec.runtime import default_spec

if TYPE_CHECKING:
    from sampan.spec.runtime import Spec

ROOT = RootFilesystem(base="/data", lowers=("layers/2", "init"), upper="s/fs", work="s/work")


def launch(spec: Spec) -> Launch:
    return Launch(id="c", bundle="/run/c", state="/data/c", spec=spec, root=ROOT)


def test_mounts_are_attached_in_the_order_of_the_specification() -> None:
    spec = default_spec()
    spec["mounts"].append({"destination": "/data", "type": "bind", "source": "/src", "options": ["rbind"]})
    plan = compile_plan(launch(spec), (("", "cgroup2", ()),))
    assert [type(mount) for mount in plan.host_mounts] == [OverlayRoot, DeviceDirectory, Bind]
    kinds = (steps.NewMount, steps.AttachHostMount, steps.CgroupMounts)
    targets = [step.destination for step in plan.late if isinstance(step, kinds)]
    assert targets == [mount["destination"] for mount in spec["mounts"]]
    attached = [step.index for step in plan.late if isinstance(step, steps.AttachHostMount)]
    assert attached == [1, 2]


def test_the_root_is_entered_before_anything_is_attached_and_hidden_last() -> None:
    spec = default_spec()
    spec["root"]["readonly"] = True
    kinds = [type(step) for step in compile_plan(launch(spec), ()).late]
    assert kinds[0] is steps.EnterRoot
    assert kinds[-4:] == [steps.MaskedPaths, steps.Network, steps.ReadonlyPaths, steps.ReadonlyRoot]


def test_namespaces_are_created_or_joined() -> None:
    spec = default_spec()
    spec["linux"]["namespaces"] = [{"type": "mount"}, {"type": "network", "path": "/proc/7/ns/net"}]
    plan = compile_plan(launch(spec), ())
    assert plan.flags == p.CLONE_NEWNS
    assert plan.joins == (("/proc/7/ns/net", p.CLONE_NEWNET),)
    assert not any(isinstance(step, steps.Network) for step in plan.late)
    assert plan.early == ()


def test_a_launch_survives_its_wire_form() -> None:
    sent = launch(default_spec())
    assert decode_launch(encode(sent)) == sent
