"""``--change``: Dockerfile instructions on a configuration."""

from __future__ import annotations

import pytest

from sampan.build.changes import apply
from sampan.errors import InvalidArgument
from sampan.spec.image import RunConfig


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ('CMD ["a", "b c"]', RunConfig(cmd=("a", "b c"))),
        ("cmd echo $HOME", RunConfig(cmd=("/bin/sh", "-c", "echo $HOME"))),
        ("CMD ['a']", RunConfig(cmd=("/bin/sh", "-c", "['a']"))),
        ('ENTRYPOINT ["/e"]', RunConfig(entrypoint=("/e",))),
        ("ENTRYPOINT []", RunConfig(entrypoint=())),
        ("ENV A=b", RunConfig(env=("A=b",))),
        ("ENV A b c", RunConfig(env=("A=b c",))),
        ("ENV A='b c' D=\"e f\" G=h\\ i", RunConfig(env=("A=b c", "D=e f", "G=h i"))),
        ("ENV A=1 A=2", RunConfig(env=("A=2",))),
        (
            "EXPOSE 80 53/udp 8000-8002/tcp",
            RunConfig(exposed_ports=("80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp")),
        ),
        ('LABEL a=b "c d"="e"', RunConfig(labels={"a": "b", "c d": "e"})),
        ("ONBUILD RUN x", RunConfig(on_build=("RUN x",))),
        ("STOPSIGNAL SIGRTMIN+3", RunConfig(stop_signal="SIGRTMIN+3")),
        ("USER 1:2", RunConfig(user="1:2")),
        ('VOLUME ["/a", "/b"]', RunConfig(volumes=("/a", "/b"))),
        ("VOLUME /a /b", RunConfig(volumes=("/a", "/b"))),
        ("WORKDIR a/../b", RunConfig(working_dir="/b")),
        ("HEALTHCHECK NONE", RunConfig(healthcheck={"Test": ["NONE"]})),
        (
            "HEALTHCHECK --interval=1m30s --retries=3 --timeout=500ms CMD curl x",
            RunConfig(
                healthcheck={
                    "Test": ["CMD-SHELL", "curl x"],
                    "Interval": 90_000_000_000,
                    "Retries": 3,
                    "Timeout": 500_000_000,
                }
            ),
        ),
        (
            "USER a\nWORKDIR /w\n# comment\nCMD x \\\n y",
            RunConfig(user="a", working_dir="/w", cmd=("/bin/sh", "-c", "x  y")),
        ),
    ],
)
def test_an_instruction_changes_the_configuration(change: str, expected: RunConfig) -> None:
    assert apply(RunConfig(), [change]) == expected


def test_variables_of_the_configuration_are_expanded() -> None:
    run = apply(RunConfig(env=("A=/a",)), ["ENV B=$A/b", "WORKDIR $B", "LABEL where=$A", "USER ${C:-1}"])
    wanted = RunConfig(env=("A=/a", "B=/a/b"), working_dir="/a/b", labels={"where": "/a"}, user="1")
    assert run == wanted


def test_instructions_build_on_one_another() -> None:
    run = apply(RunConfig(working_dir="/a", env=("X=1",)), ["WORKDIR b", "ENV X=2", "ENV Y=3"])
    assert run == RunConfig(working_dir="/a/b", env=("X=2", "Y=3"))


def test_an_entrypoint_takes_the_inherited_command_away_but_not_a_given_one() -> None:
    inherited = RunConfig(cmd=("old",))
    assert apply(inherited, ['ENTRYPOINT ["e"]']).cmd is None
    assert apply(inherited, ['CMD ["new"]', 'ENTRYPOINT ["e"]']).cmd == ("new",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("RUN x", "run is not a valid change command"),
        ("nonsense", "nonsense is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=b c", 'Syntax error - can\'t find = in "c"'),
        ("ENV =b", "ENV names can not be blank"),
        ("EXPOSE x", "invalid containerPort: x"),
        ("# only this", "file with no instructions"),
        ("EXPOSE 99999", "invalid containerPort: 99999"),
        ("EXPOSE 9-8", "invalid containerPort: 9-8"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("STOPSIGNAL a b", "invalid signal: a b"),
        ('SHELL ["sh"]', "shell is not a valid change command"),
        ("STOPSIGNAL WRONG", "invalid signal: WRONG"),
        ("HEALTHCHECK RUN x", 'unknown type "RUN" in HEALTHCHECK'),
        ("HEALTHCHECK CMD", "missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --interval=x CMD y", 'invalid duration "x" of --interval'),
        ("HEALTHCHECK --wrong=1 CMD y", "unknown flag: --wrong"),
        ('VOLUME [""]', "VOLUME specified can not be an empty string"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
    ],
)
def test_what_cannot_be_applied_is_refused_in_dockers_words(change: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        apply(RunConfig(), [change])
    assert message in str(caught.value)
