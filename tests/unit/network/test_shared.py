from __future__ import annotations

import os
from pathlib import Path

from sampan.network.shared import SharedDirectory
from sampan.sandbox.interfaces import alias, parse_alias
from sampan.sandbox.messages import Endpoint


def test_registrations(tmp_path: Path) -> None:
    shared = SharedDirectory(os.fspath(tmp_path / "shared"))
    with shared.lock():
        assert shared.subnets(but="") == {}
        shared.register("one", "172.29.0.0/16")
        shared.register("one", "172.28.0.0/16")
        shared.register("two", "172.27.0.0/16")
        (tmp_path / "shared" / "broken.json").write_text("{")
        (tmp_path / "shared" / "list.json").write_text("[]")
        assert shared.subnets(but="two") == {"one": ("172.28.0.0/16",)}
        shared.forget("one")
        shared.forget("one")
        assert shared.subnets(but="") == {"two": ("172.27.0.0/16",)}


def test_the_alias_is_the_lease() -> None:
    endpoint = Endpoint(bridge="b", host_name="sv1", mac="02:42:ac:1d:00:02", addresses=("172.29.0.2/16",))
    assert parse_alias(alias(endpoint)) == ("eth0", "02:42:ac:1d:00:02", ("172.29.0.2/16",))
    for other in ("", "sampan", "uplink of the office", "sampan eth0 02:42:ac:1d:00:02"):
        assert parse_alias(other) is None
