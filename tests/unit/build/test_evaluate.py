"""A stage's configuration, step by step: as Docker's classic builder and BuildKit have it."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.build import dockerfile, evaluate, instructions
from sampan.build.dockerfile import DockerfileError
from sampan.build.evaluate import Draft, Outcome
from sampan.spec.image import RunConfig

BASE = RunConfig(env=("PATH=/bin", "OLD=1"), cmd=("sh",))


def take(text: str, config: RunConfig = BASE, **given: str) -> tuple[Draft, list[Outcome]]:
    """The draft after all instructions but FROM, and their outcomes."""
    draft = Draft(escape="\\", given=given, outer={"GLOBAL": "g"}, config=config)
    draft.begin()
    file = dockerfile.parse(f"FROM x\n{text}")
    return draft, [draft.take(instructions.read(source)) for source in file.instructions[1:]]


def env(text: str, **given: str) -> dict[str, str]:
    draft, _ = take(text, BASE, **given)
    return dict(entry.split("=", 1) for entry in draft.config.env)


def test_env_of_one_line_sees_what_was_before_it() -> None:
    found = env("ENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\n")
    assert (found["abc"], found["def"], found["ghi"]) == ("bye", "hello", "bye")


def test_env_in_the_old_form_takes_the_rest_of_the_line() -> None:
    assert env("ENV A b c  d\n")["A"] == "b c  d"


@pytest.mark.parametrize(
    ("text", "given", "value"),
    [
        ("ARG A=1\nENV R=$A\n", {}, "1"),
        ("ARG A=1\nENV R=$A\n", {"A": "2"}, "2"),
        ("ARG A\nENV R=${A:-none}\n", {}, "none"),
        ("ENV R=$A\nARG A=1\n", {"A": "2"}, ""),
        ("ENV A=env\nARG A=1\nENV R=$A\n", {"A": "2"}, "env"),
        ("ARG A=1\nENV A=env\nENV R=$A\n", {"A": "2"}, "env"),
        ("ARG GLOBAL\nENV R=$GLOBAL\n", {}, "g"),
        ("ENV R=$GLOBAL\n", {}, ""),
        ("ARG GLOBAL=own\nENV R=$GLOBAL\n", {}, "own"),
        ("ARG A=1 B=$A\nENV R=$B\n", {}, "1"),
        ("ENV R=$HTTP_PROXY\n", {"HTTP_PROXY": "p"}, ""),
    ],
)
def test_the_scope_of_arguments(text: str, given: dict[str, str], value: str) -> None:
    assert env(text, **given)["R"] == value


def test_arguments_are_in_the_words_of_run_but_not_proxies() -> None:
    _, (_, run) = take("ARG A=1\nRUN echo $A\n", HTTP_PROXY="http://secret")
    assert run.words == "RUN |1 A=1 /bin/sh -c echo $A"
    work: Any = run.work
    assert "HTTP_PROXY=http://secret" in work.environment
    assert "A=1" in work.environment


def test_entrypoint_takes_back_an_inherited_command_only() -> None:
    assert take('ENTRYPOINT ["a"]\n')[0].config.cmd is None
    assert take('CMD ["b"]\nENTRYPOINT ["a"]\n')[0].config.cmd == ("b",)
    assert take("CMD x y\n")[0].config.cmd == ("/bin/sh", "-c", "x y")
    assert take('SHELL ["/bin/bash", "-lc"]\nCMD x\n')[0].config.cmd == ("/bin/bash", "-lc", "x")


@pytest.mark.parametrize(
    ("text", "directory"),
    [
        ("WORKDIR a\n", "/a"),
        ("WORKDIR /a\nWORKDIR b\nWORKDIR ../c/./d\n", "/a/c/d"),
        ("ENV D=/x\nWORKDIR $D/y\n", "/x/y"),
        ("WORKDIR /../..\n", "/"),
        ("WORKDIR //a\n", "/a"),
    ],
)
def test_work_directories(text: str, directory: str) -> None:
    assert take(text)[0].config.working_dir == directory


def test_ports_volumes_labels_and_the_rest() -> None:
    draft, _ = take(
        'EXPOSE 80 53/udp 8000-8002/tcp\nENV P=90\nEXPOSE $P\nVOLUME /a /b\nVOLUME ["/c d"]\n'
        "LABEL a=b \"c d\"='e f'\nUSER 1:2\nSTOPSIGNAL SIGINT\nMAINTAINER me\n"
    )
    config = draft.config
    assert config.exposed_ports == ("80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp", "90/tcp")
    assert config.volumes == ("/a", "/b", "/c d")
    assert config.labels == {"a": "b", "c d": "e f"}
    assert (config.user, config.stop_signal, draft.author) == ("1:2", "SIGINT", "me")


def test_a_health_check_is_taken_back() -> None:
    draft, _ = take("HEALTHCHECK --interval=5s CMD true\nHEALTHCHECK NONE\n")
    assert draft.config.healthcheck == {"Test": ["NONE"]}


def test_triggers_are_kept_as_they_are_and_gone_in_the_next_stage() -> None:
    draft, _ = take("ENV X=1\nONBUILD RUN echo $X\n")
    assert draft.config.on_build == ("RUN echo $X",)
    draft.begin()
    assert list(draft.config.on_build) == []


def copy(text: str, config: RunConfig = BASE) -> Any:
    return take(text, config)[1][-1].work


@pytest.mark.parametrize(
    ("text", "sources", "target"),
    [
        ("COPY a b\n", ("a",), "/b"),
        ("COPY a b/\n", ("a",), "/b/"),
        ("WORKDIR /w\nCOPY a .\n", ("a",), "/w/"),
        ("WORKDIR /w\nCOPY a b /c/\n", ("a", "b"), "/c/"),
        ('COPY ["a b", "/c d/"]\n', ("a b",), "/c d/"),
        ('ENV S="x y" D=/d\nCOPY $S $D/\n', ("x", "y"), "/d/"),
        ('ENV S="x y" D=/d\nCOPY "$S" $D/\n', ("x y",), "/d/"),
    ],
)
def test_sources_and_target_of_copy(text: str, sources: tuple[str, ...], target: str) -> None:
    work = copy(text)
    assert (work.sources, work.target) == (sources, target)


def test_heredocs() -> None:
    _, (_, inline) = take("ENV X=7\nCOPY <<one <<'two' /d/\n$X\none\n$X\ntwo\n")
    work: Any = inline.work
    assert work.inline == (("one", "7\n"), ("two", "$X\n"))
    _, (run,) = take("RUN <<E\necho a\necho b\nE\n")
    work = run.work
    assert work.command == ("/bin/sh", "-c", "echo a\necho b\n")
    _, (run,) = take("RUN <<E\n#!/bin/python\nprint()\nE\n")
    work = run.work
    assert (work.command, work.script) == ((evaluate.SCRIPT,), "#!/bin/python\nprint()\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("COPY --chmod=9 a b\n", "invalid chmod parameter"),
        ("EXPOSE http\n", "invalid containerPort: http"),
        ("EXPOSE 99999\n", "invalid containerPort: 99999"),
        ('VOLUME [""]\n', "can not be an empty string"),
        ("ARG A\nRUN true\nENV B=${A:?needed}\n", "needed"),
    ],
)
def test_what_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message):
        take(text)


def test_an_error_is_shown_with_its_neighbours() -> None:
    lines = ["FROM a", "RUN b", "COPY c", "RUN d", "RUN e", "RUN f"]
    assert evaluate.shown(lines, 3, 3, "Dockerfile").splitlines() == [
        "Dockerfile:3",
        "--------------------",
        "   1 |     FROM a",
        "   2 |     RUN b",
        "   3 | >>> COPY c",
        "   4 |     RUN d",
        "   5 |     RUN e",
        "--------------------",
    ]
