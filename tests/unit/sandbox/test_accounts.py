"""Docker's USER syntax."""

from __future__ import annotations

import os
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.sandbox import accounts

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# a comment
daemon:x:1:1::/usr/sbin
redis:x:100:101:Redis:/var/lib/redis:/bin/false
1234:x:77:78:::
broken:x:zero:0::/broken:
redis:x:999:999:again:/again:
huge:x:4294967296:0:::
short
"""
GROUP = b"""root:x:0:root
daemon:x:1:
wheel:x:10:root,redis
redis:x:101:
disk:x:6:redis
555:x:20:
bad:x::redis
"""


def find(user: str, *group_add: str) -> accounts.Account:
    return accounts.find_account(user, group_add, passwd=PASSWD, group=GROUP)


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups", "home", "name"),
    [
        ("", 0, 0, (0, 10), "/root", "root"),
        ("root", 0, 0, (0, 10), "/root", "root"),
        ("0", 0, 0, (0, 10), "/root", "root"),
        ("redis", 100, 101, (101, 10, 6), "/var/lib/redis", "redis"),
        ("100", 100, 101, (101, 10, 6), "/var/lib/redis", "redis"),
        ("redis:", 100, 101, (101, 10, 6), "/var/lib/redis", "redis"),
        ("redis:disk", 100, 6, (6,), "/var/lib/redis", "redis"),
        ("redis:0", 100, 0, (0,), "/var/lib/redis", "redis"),
        ("5000", 5000, 0, (0,), "/", ""),
        ("5000:6000", 5000, 6000, (6000,), "/", ""),
        ("5000:wheel", 5000, 10, (10,), "/", ""),
        (":wheel", 0, 10, (10,), "/root", "root"),
        ("1234", 1234, 0, (0,), "/", ""),
        ("daemon", 1, 1, (1,), "/usr/sbin", "daemon"),
        ("77", 77, 78, (78,), "/", "1234"),
        ("redis:disk:more", 100, 6, (6,), "/var/lib/redis", "redis"),
    ],
)
def test_user_syntax(user: str, uid: int, gid: int, groups: tuple[int, ...], home: str, name: str) -> None:
    assert find(user) == accounts.Account(uid=uid, gid=gid, groups=groups, home=home, name=name)


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("foo", "unable to find user foo: no matching entries in passwd file"),
        ("broken", "unable to find user broken: no matching entries in passwd file"),
        ("huge", "unable to find user huge: no matching entries in passwd file"),
        ("9" * 25, f"unable to find user {'9' * 25}: no matching entries in passwd file"),
        ("\u0661", "unable to find user \u0661: no matching entries in passwd file"),
        ("0:foo", "unable to find group foo: no matching entries in group file"),
        ("-1", "uids and gids must be in range 0-2147483647"),
        ("2147483648", "uids and gids must be in range 0-2147483647"),
        ("0:2147483648", "uids and gids must be in range 0-2147483647"),
    ],
)
def test_unknown_users_and_groups(user: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        find(user)
    assert str(caught.value) == message


def test_group_add_by_name_number_and_numeric_name() -> None:
    assert find("daemon", "wheel", "4000", "555", "disk", "wheel").groups == (1, 10, 4000, 20, 6)
    with pytest.raises(
        InvalidArgument, match=r"^unable to find group foo: no matching entries in group file$"
    ):
        find("", "foo")
    with pytest.raises(InvalidArgument, match="range"):
        find("", "-3")


@given(st.binary(max_size=300), st.binary(max_size=300), st.text(max_size=12))
def test_hostile_files_give_an_account_or_a_failure(passwd: bytes, group: bytes, user: str) -> None:
    try:
        account = accounts.find_account(user, (), passwd=passwd, group=group)
    except InvalidArgument:
        return
    assert 0 <= account.uid <= accounts.MAXIMUM_ID
    assert account.groups[0] == account.gid


def test_files_that_are_no_files_are_empty(tmp_path: pathlib.Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "loop").symlink_to("loop")
    read, write = os.pipe()
    with os.fdopen(read), os.fdopen(write, "wb") as pipe:
        pipe.write(PASSWD)
        pipe.flush()
        (tmp_path / "link").symlink_to(f"/proc/self/fd/{read}")
        for name in ("fifo", "loop", "link", ".", "absent"):
            path = str(tmp_path / name)
            account = accounts.resolve("", passwd_path=path, group_path=path)
            assert account == accounts.Account(uid=0, gid=0, groups=(0,))


def test_files_are_read_up_to_a_bound(tmp_path: pathlib.Path) -> None:
    good, sparse = tmp_path / "passwd", tmp_path / "sparse"
    good.write_bytes(PASSWD)
    sparse.touch()
    os.truncate(sparse, 1 << 40)
    assert accounts.resolve("redis", passwd_path=str(good), group_path=str(tmp_path / "none")).gid == 101
    with pytest.raises(InvalidArgument, match="larger than"):
        accounts.resolve("redis", passwd_path=str(sparse), group_path=str(good))
