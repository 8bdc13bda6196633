"""Profiles of users: what is read, what is refused, and how conditions are decided."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sampan.errors import InvalidArgument
from sampan.spec.seccomp import default_profile, parse, resolve

RULE: dict[str, Any] = {"names": ["read"], "action": "SCMP_ACT_ALLOW"}
ARGUMENT: dict[str, Any] = {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}


def document(*rules: object, **top: object) -> str:
    return json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [*rules], **top})


def test_a_profile_keeps_all_that_is_known() -> None:
    source = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "flags": ["SECCOMP_FILTER_FLAG_TSYNC"],
        "syscalls": [
            {
                "names": ["clone", "made_up_call"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 5,
                "args": [{"index": 5, "value": 2**64 - 1, "valueTwo": 7, "op": "SCMP_CMP_MASKED_EQ"}],
                "includes": {"caps": ["CAP_BPF"], "minKernel": "4.8"},
                "excludes": {"arches": ["s390"]},
            }
        ],
    }
    assert parse(json.dumps(source)) == source
    assert parse(json.dumps(default_profile()))["syscalls"][0] == default_profile()["syscalls"][0]


def test_the_old_form_has_one_name_a_rule_and_nulls() -> None:
    profile = parse(
        document(
            {"name": "read", "names": None, "action": "SCMP_ACT_ALLOW", "args": None, "comment": "x"},
            architectures=["SCMP_ARCH_X86"],
            archMap=None,
        )
    )
    assert profile["syscalls"] == [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]
    assert profile["architectures"] == ["SCMP_ARCH_X86"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Decoding seccomp profile failed: Expecting value"),
        ("[" * 100000, "Decoding seccomp profile failed: "),
        ("[]", "profile: must be an object"),
        ("{}", "defaultAction: null is none of SCMP_ACT_KILL"),
        ('{"defaultAction": ["x"]}', r"defaultAction: \[\"x\"\] is none of"),
        (document(defaultErrnoRet=-1), "defaultErrnoRet: must be a number from 0 to 4095"),
        (document(defaultErrnoRet=True), "defaultErrnoRet: must be a number"),
        (document(syscalls={}), "syscalls: must be an array"),
        (document(1), r"syscalls\[0\]: must be an object"),
        (document(RULE, {**RULE, "names": [1]}), r"syscalls\[1\].names: must be an array of strings"),
        (document({**RULE, "name": "x"}), "'name' and 'names' were specified in the seccomp profile"),
        (document({"name": 5, "action": "SCMP_ACT_ALLOW"}), r"syscalls\[0\].name: must be a string"),
        (document({**RULE, "action": "ALLOW"}), r'syscalls\[0\].action: "ALLOW" is none of'),
        (document({**RULE, "action": "SCMP_ACT_NOTIFY"}), "is none of"),
        (
            document({**RULE, "args": [{**ARGUMENT, "index": 6}]}),
            r"args\[0\].index: must be a number from 0 to 5",
        ),
        (document({**RULE, "args": [{**ARGUMENT, "value": 2**64}]}), r"args\[0\].value: must be a number"),
        (document({**RULE, "args": [{**ARGUMENT, "op": "EQ"}]}), r'args\[0\].op: "EQ" is none of'),
        (document({**RULE, "includes": []}), ""),
        (document({**RULE, "includes": [1]}), r"syscalls\[0\].includes: must be an object"),
        (
            document({**RULE, "excludes": {"minKernel": "new"}}),
            "minKernel: must be a kernel version such as 4.8",
        ),
        (document({**RULE, "excludes": {"minKernel": 5}}), "minKernel: must be a kernel version"),
        (document(archMap=[{}]), r"archMap\[0\].architecture: must be a string"),
        (document(flags=["X"]), 'flags: "X" is none of'),
        (document(listenerPath="/x"), "notifying a listener is not supported"),
        (
            document(architectures=["SCMP_ARCH_X86"], archMap=[{"architecture": "SCMP_ARCH_X86_64"}]),
            "use either 'architectures' or 'archMap'",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, message: str) -> None:
    if not message:
        parse(text)  # an empty value is none
        return
    with pytest.raises(InvalidArgument, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def names(profile_rule: dict[str, Any], **host: Any) -> bool:
    profile = parse(document({**RULE, **profile_rule}))
    settings = {"capabilities": ("CAP_BPF", "CAP_KILL"), "architecture": "x86_64", "kernel": (6, 1), **host}
    return bool(resolve(profile, **settings)["syscalls"])


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        ({"caps": ["CAP_BPF"]}, True),
        ({"caps": ["CAP_BPF", "CAP_KILL"]}, True),
        ({"caps": ["CAP_SYS_ADMIN"]}, False),
        ({"arches": ["amd64", "arm64"]}, True),
        ({"arches": ["arm64"]}, False),
        ({"minKernel": "6.1"}, True),
        ({"minKernel": "6.2"}, False),
        ({"minKernel": "5.19"}, True),
    ],
)
def test_a_condition_includes_or_excludes(conditions: dict[str, Any], holds: bool) -> None:
    assert names({"includes": conditions}) is holds
    assert names({"excludes": conditions}) is not holds


def test_all_of_the_included_and_none_of_the_excluded_capabilities_are_wanted() -> None:
    assert not names({"includes": {"caps": ["CAP_BPF", "CAP_SYS_ADMIN"]}})
    assert not names({"excludes": {"caps": ["CAP_BPF", "CAP_SYS_ADMIN"]}})
    assert not names({"includes": {"caps": ["CAP_BPF"], "arches": ["arm64"]}})
    assert not names({"excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["amd64"]}})
