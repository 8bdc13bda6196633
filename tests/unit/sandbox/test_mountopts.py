from __future__ import annotations

from sampan.linux import mount as m
from sampan.sandbox.mountopts import Options, parse


def test_attributes_and_data_are_separated() -> None:
    options = parse(["nosuid", "strictatime", "mode=755", "size=64k", "newinstance"])
    assert options.attributes == m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_STRICTATIME
    assert options.data == (("mode", "755"), ("size", "64k"), ("newinstance", None))


def test_the_last_of_two_contradicting_options_counts() -> None:
    assert parse(["ro", "rw"]).attributes == 0
    assert parse(["rw", "ro"]).attributes == m.MOUNT_ATTR_RDONLY
    assert parse(["noatime", "strictatime"]).attr_set == m.MOUNT_ATTR_STRICTATIME


def test_binds_and_propagation() -> None:
    options = parse(["rbind", "rslave", "Z"])
    assert options == Options(recursive=True, propagation=m.MS_SLAVE, propagation_recursive=True)
    assert parse(["bind", "shared"]).propagation == m.MS_SHARED
    assert not parse(["bind", "shared"]).propagation_recursive


def test_readonly_can_be_asked_for_all_submounts() -> None:
    assert parse(["rbind", "rro"]).recursive_readonly
    assert not parse(["rbind", "ro"]).recursive_readonly
