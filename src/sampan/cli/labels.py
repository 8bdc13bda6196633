"""Values of --env, --env-file, --label and --label-file: variables, and files of them."""

from __future__ import annotations

import os

from sampan.errors import Failure


def variable(text: str) -> str:
    """``NAME=VALUE``, or ``NAME`` whose value comes from this process (and is dropped if it has none)."""
    if not text or text[0] == "=":
        raise ValueError(f"invalid environment variable: {text}")
    return text


def label(text: str) -> str:
    """``key[=value]``."""
    key, sign, value = text.partition("=")
    key = key.strip()
    if not key:
        raise ValueError(f"invalid label '{text}': empty name")
    if any(character.isspace() for character in key):
        raise ValueError(f"label '{key}' contains whitespaces")
    return key + sign + value


def lines_of(path: str, what: str) -> list[str]:
    """The variables of a file, one a line; empty lines and comments are skipped. Raises Failure."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise Failure(f"open {path}: {os.strerror(error.errno or 0).lower()}") from error
    found = []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            line = raw.removesuffix(b"\r").decode()
        except UnicodeDecodeError:
            raise Failure(
                f"invalid {what} file ({path}): invalid utf8 bytes at line {number}: {list(raw)}"
            ) from None
        line = line.lstrip()
        if not line or line[0] == "#":
            continue
        name, sign, value = line.partition("=")
        name = name.lstrip()
        if not name:
            raise Failure(f"invalid {what} file ({path}): no variable name on line '{line}'")
        if any(character.isspace() for character in name):
            raise Failure(f"invalid {what} file ({path}): variable '{name}' contains whitespaces")
        found.append(name + sign + value)
    return found


def environment(files: list[str], given: list[str]) -> list[str]:
    """The environment to send: files first, then flags; names without a value are looked up here.

    A name that has no value anywhere is left out if it comes from a file; from a flag it is sent as it is,
    which unsets the image's.
    """
    found = [_valued(line) for path in files for line in lines_of(path, "env")]
    named: dict[str, str] = {}  # of two flags with one name the later wins, in the place of the first
    for text in given:
        named[text.partition("=")[0]] = _valued(text) or text
    return [text for text in found if text] + list(named.values())


def _valued(text: str) -> str:
    """``text`` with a value, from this process's environment if need be; empty if that has none."""
    if "=" in text:
        return text
    return f"{text}={os.environ[text]}" if text in os.environ else ""


def labels(files: list[str], given: list[str]) -> dict[str, str]:
    """The labels of files and flags; a later one wins."""
    found: dict[str, str] = {}
    from_files = [line for path in files for line in lines_of(path, "label") if "=" in line]
    for text in from_files + given:
        key, _, value = text.partition("=")
        found[key] = value
    return found
