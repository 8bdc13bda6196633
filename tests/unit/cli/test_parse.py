"""Flags by pflag's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.cli.conftest import Run

from sampan.cli.index import GROUPS, top
from sampan.cli.main import load
from sampan.cli.parse import FlagError, HelpRequested, parse
from sampan.cli.runflags import RUN, SHARED
from sampan.cli.values import KINDS

FLAGS: tuple[tuple[str, ...], ...] = (
    ("i", "interactive", "bool", "help"),
    ("t", "tty", "bool", "help"),
    ("e", "env", "list", "help"),
    ("n", "last", "int", "help", "-1"),
    ("", "rm", "bool", "help"),
    ("", "name", "string", "help"),
)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["-it"], "tty", True),
        (["-e", "A"], "env", ["A"]),
        (["-eA=B"], "env", ["A=B"]),
        (["-e=A=B"], "env", ["A=B"]),
        (["--env=A=B", "--env", "C"], "env", ["A=B", "C"]),
        (["-ite", "A"], "env", ["A"]),
        (["--rm=false"], "rm", False),
        (["--rm", "false"], "rm", True),
        (["-n", "-3"], "last", -3),
        (["-n0x10"], "last", 16),
        ([], "last", -1),
        (["--name="], "name", ""),
        (["--name", "--rm"], "name", "--rm"),
    ],
)
def test_value(words: list[str], name: str, value: object) -> None:
    assert parse(FLAGS, words)[0][name] == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--foo"], "unknown flag: --foo"),
        (["--foo=1"], "unknown flag: --foo"),
        (["-x"], "unknown shorthand flag: 'x' in -x"),
        (["-itx"], "unknown shorthand flag: 'x' in -x"),
        (["--name"], "flag needs an argument: --name"),
        (["-e"], "flag needs an argument: 'e' in -e"),
        (["---"], "bad flag syntax: ---"),
        (["--=x"], "bad flag syntax: --=x"),
        (["--rm=x"], 'invalid argument "x" for "--rm" flag: strconv.ParseBool: parsing "x": invalid syntax'),
        (
            ["-n", "a"],
            'invalid argument "a" for "-n, --last" flag: strconv.ParseInt: parsing "a": invalid syntax',
        ),
    ],
)
def test_refusal(words: list[str], message: str) -> None:
    with pytest.raises(FlagError) as caught:
        parse(FLAGS, words)
    assert str(caught.value) == message


def test_arguments_end_the_flags_only_where_the_rest_is_the_containers() -> None:
    words = ["-i", "image", "-t", "x"]
    assert parse(FLAGS, words)[1] == ["image", "x"]
    options, arguments = parse(FLAGS, words, interspersed=False)
    assert (arguments, options["tty"]) == (["image", "-t", "x"], False)


def test_two_dashes_end_the_flags() -> None:
    assert parse(FLAGS, ["a", "--", "-t", "--"])[1] == ["a", "-t", "--"]


@pytest.mark.parametrize(("word", "deprecated"), [("--help", False), ("-h", True)])
def test_help(word: str, deprecated: bool) -> None:
    with pytest.raises(HelpRequested) as caught:
        parse(FLAGS, [word])
    assert caught.value.deprecated is deprecated


@given(st.lists(st.text(alphabet="-=abeinrt 1", max_size=6)))
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    try:
        _, arguments = parse(FLAGS, words)
    except (FlagError, HelpRequested):
        return
    assert len(arguments) <= len(words)


def test_every_command_loads_and_its_table_is_sound() -> None:
    spelled = [(name, module) for name, module in top().items()]
    spelled += [
        (f"{group} {name}", module) for group, names in GROUPS.items() for name, module in names.items()
    ]
    for words, module in spelled:
        command = load(module, words)
        names = [flag[1] for flag in command.flags]
        letters = [flag[0] for flag in command.flags if flag[0]]
        assert len(set(names)) == len(names), words
        assert len(set(letters)) == len(letters), words
        assert all(flag[2] in KINDS for flag in command.flags), words
        parse(command.flags, [])


def test_run_takes_all_that_create_takes() -> None:
    assert set(SHARED) < set(RUN)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("foo", 1, "sampan: unknown command: sampan foo\n\nRun 'sampan --help' for more information\n"),
        (
            "swarm init",
            1,
            "sampan swarm: Swarm mode is not offered; run several containers as one with Compose "
            "(sampan compose)\n",
        ),
        (
            "build",
            1,
            "sampan: 'sampan build' requires 1 argument\n\nUsage:  sampan build [OPTIONS] PATH | URL | -\n\n"
            "Run 'sampan build --help' for more information\n",
        ),
        (
            "container foo",
            1,
            "sampan: unknown command: sampan container foo\n\nUsage:  sampan container\n\n"
            "Run 'sampan container --help' for more information\n",
        ),
        (
            "ps --foo",
            125,
            "unknown flag: --foo\n\nUsage:  sampan ps [OPTIONS]\n\n"
            "Run 'sampan ps --help' for more information\n",
        ),
        (
            "ps x",
            1,
            "sampan: 'sampan ps' accepts no arguments\n\nUsage:  sampan ps [OPTIONS]\n\n"
            "Run 'sampan ps --help' for more information\n",
        ),
        (
            "rm",
            1,
            "sampan: 'sampan rm' requires at least 1 argument\n\nUsage:  sampan rm [OPTIONS] CONTAINER "
            "[CONTAINER...]\n\nSee 'sampan rm --help' for more information\n",
        ),
        (
            "-x ps",
            125,
            "unknown shorthand flag: 'x' in -x\n\nUsage:  sampan [OPTIONS] COMMAND [ARG...]\n\n"
            "Run 'sampan --help' for more information\n",
        ),
        ("help foo", 1, "unknown help topic: foo\n"),
        (
            "-H unix:///nowhere ps",
            1,
            "Cannot connect to the Sampan daemon at unix:///nowhere. Is the sampan daemon running?\n",
        ),
        (
            "-H unix:///nowhere run x",
            125,
            "sampan: Cannot connect to the Sampan daemon at unix:///nowhere. "
            "Is the sampan daemon running?\n\n"
            "Run 'sampan run --help' for more information\n",
        ),
    ],
)
def test_wrong_command_lines(run: Run, words: str, code: int, message: str) -> None:
    assert run(*words.split()) == (code, "", message)


def test_help_is_laid_out_in_eighty_columns(run: Run) -> None:
    code, out, err = run("run", "--help")
    assert (code, err) == (0, "")
    assert out.startswith("Usage:  sampan run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\n")
    assert "\n  -i, --interactive " in out
    assert max(len(line) for line in out.splitlines()) <= 80
