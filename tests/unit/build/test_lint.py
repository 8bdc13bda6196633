"""What a Dockerfile had better not have."""

from __future__ import annotations

import pytest

from sampan.build import dockerfile, lint
from sampan.build.dockerfile import DockerfileError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('FROM a\nRUN true\nCMD ["x"]\n', []),
        ("FROM a AS Base\n", ["StageNameCasing"]),
        ("FROM a as b\n", ["FromAsCasing"]),
        ("from a as b\nrun true\n", []),
        ("FROM a\nRUN true\nrun true\n", ["ConsistentInstructionCasing"]),
        ("FROM a\nRUN a \\\n\n  b\n", ["NoEmptyContinuation"]),
        ("FROM a\nRUN <<E\n\n\nE\n", []),
        ("FROM a AS x\nFROM b AS x\n", ["DuplicateStageName"]),
        ("FROM a AS scratch\n", ["ReservedStageName"]),
        ("FROM a\nCMD x y\n", ["JSONArgsRecommended"]),
        ('FROM a\nSHELL ["/x"]\nENTRYPOINT x y\n', []),
        ('FROM a\nCMD ["x"]\nCMD ["y"]\n', ["MultipleInstructionsDisallowed"]),
        ("FROM a\nMAINTAINER me\n", ["MaintainerDeprecated"]),
        ("FROM a\nENV a b\nLABEL c d\n", ["LegacyKeyValueFormat", "LegacyKeyValueFormat"]),
        ("ARG A=1\nFROM $A\nFROM ${B:-x}\n", ["UndefinedArgInFrom"]),
        ("ARG A\nFROM b:$A\n", ["InvalidDefaultArgInFrom"]),
        ("ARG A\nFROM b:${A:-1}\n", []),
        ("FROM --platform=$TARGETPLATFORM a\n", ["RedundantTargetPlatform"]),
        ("FROM --platform=$BUILDPLATFORM a\n", []),
        ("FROM --platform=linux/amd64 a\n", ["FromPlatformFlagConstDisallowed"]),
        ("FROM a\nWORKDIR x\n", ["WorkdirRelativePath"]),
        ("FROM a\nWORKDIR /x\nWORKDIR y\n", []),
        ("FROM a\nARG API_TOKEN\nENV PUBLIC_KEY=1 MONKEY=2\n", ["SecretsUsedInArgOrEnv"]),
        ("FROM a\nEXPOSE 80/TCP 127.0.0.1:8080:80\n", ["ExposeProtoCasing", "ExposeInvalidFormat"]),
        ("# check=skip=all\nFROM a AS B\n", []),
        ("# check=skip=StageNameCasing,X\nFROM a AS B\nMAINTAINER me\n", ["MaintainerDeprecated"]),
    ],
)
def test_rules(text: str, found: list[str]) -> None:
    assert [warning.rule for warning in lint.lint(dockerfile.parse(text))] == found


def test_errors_where_the_file_wants_them() -> None:
    lint.refuse(dockerfile.parse("FROM a\nMAINTAINER me\n"))
    with pytest.raises(
        DockerfileError, match="lint violation found for rules: MaintainerDeprecated"
    ) as error:
        lint.refuse(dockerfile.parse("# check=error=true\nFROM a\nMAINTAINER me\n"))
    assert error.value.first == 3
    with pytest.raises(DockerfileError, match="invalid check option"):
        lint.refuse(dockerfile.parse("# check=odd\nFROM a\n"))


def test_the_report() -> None:
    assert lint.report(dockerfile.parse("FROM a\n"), "Dockerfile") == "Check complete, no warnings found.\n"
    text = lint.report(dockerfile.parse("FROM a\nMAINTAINER me\n"), "Dockerfile")
    assert text.startswith("Check complete, 1 warning has been found!\n\nWARNING: MaintainerDeprecated\n")
    assert "   2 | >>> MAINTAINER me\n" in text
