"""Tokens to a tree.

Nodes are tuples, the first item names the kind; positions are offsets into the template, for messages:

    ("text", literal)
    ("action", pipeline)
    ("if" | "with" | "range", pipeline, body, otherwise)      body and otherwise are lists of nodes
    ("break",) ("continue",)

    pipeline = (declared names, is assignment, [commands])
    command  = [operands]
    operand  = ("dot", pos) ("field", names, pos) ("variable", name, names, pos) ("function", name, pos)
               ("chain", operand, names, pos) ("pipeline", pipeline, pos) ("value", constant, pos)
"""

from __future__ import annotations

from sampan.wire.template.functions import FUNCTIONS
from sampan.wire.template.lexer import Lexer, TemplateError, failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.wire.template.lexer import Token

    Node = tuple[Any, ...]

_CONTROLS = ("if", "with", "range")
_END: Token = ("eof", "", -1)


class Parser:
    """Reads one template's tokens from left to right."""

    __slots__ = ("_at", "_lexer", "_loops", "_tokens", "_variables")

    def __init__(self, text: str) -> None:
        self._lexer = Lexer(text)
        self._tokens = self._lexer.run()
        self._at = 0
        self._variables: list[str] = ["$"]
        self._loops = 0

    def _next(self) -> Token:
        token = self._tokens[self._at] if self._at < len(self._tokens) else _END
        self._at += 1
        return token

    def _peek(self) -> Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def _solid(self) -> Token:
        """The next token that is no space."""
        token = self._next()
        while token[0] == "space":
            token = self._next()
        return token

    def _fail(self, token: Token, message: str) -> TemplateError:
        position = token[2] if token[2] >= 0 else 10**9
        return failed(self._lexer.line(position), message)

    def template(self) -> list[Node]:
        """The whole template."""
        nodes, end = self._nodes(())
        if end is not None:
            raise self._fail(end, f"unexpected {{{{{end[1]}}}}}")
        return nodes

    def _nodes(self, stops: tuple[str, ...]) -> tuple[list[Node], Token | None]:
        """Nodes up to one of the keywords ``stops`` (or "end"), and the keyword's token."""
        nodes: list[Node] = []
        while True:
            token = self._next()
            if token[0] == "eof":
                if stops:
                    raise self._fail(token, "unexpected EOF")
                return nodes, None
            if token[0] == "text":
                nodes.append(("text", token[1]))
                continue
            word = self._solid()
            if word[0] == "name" and word[1] in ("end", "else"):
                if not stops:
                    raise self._fail(word, f"unexpected {{{{{word[1]}}}}}")
                return nodes, word
            self._at -= 1
            node = self._action(word)
            if node is not None:
                nodes.append(node)

    def _action(self, word: Token) -> Node | None:
        if word[0] == "name" and word[1] in _CONTROLS:
            self._solid()
            return self._control(word[1])
        if word[0] == "name" and word[1] in ("break", "continue"):
            self._solid()
            if not self._loops:
                raise self._fail(word, f"{{{{{word[1]}}}}} outside {{{{range}}}}")
            self._close(word[1])
            return (word[1],)
        if word[0] == "name" and word[1] in ("define", "template", "block"):
            raise self._fail(word, f"{{{{{word[1]}}}}} is not offered")
        return ("action", self._pipeline("command", "close"))

    def _close(self, context: str) -> None:
        token = self._solid()
        if token[0] != "close":
            raise self._fail(token, f"unexpected {_shown(token)} in {context}")

    def _control(self, kind: str) -> Node:
        outer = len(self._variables)
        pipeline = self._pipeline(kind, "close")
        self._loops += kind == "range"
        body, stop = self._nodes(("else", "end"))
        self._loops -= kind == "range"
        otherwise: list[Node] = []
        if stop is not None and stop[1] == "else":
            following = self._solid()
            if following[0] == "name" and following[1] in ("if", "with") and following[1] == kind:
                otherwise = [self._control(kind)]
                del self._variables[outer:]
                return (kind, pipeline, body, otherwise)
            if following[0] != "close":
                raise self._fail(following, f"unexpected {_shown(following)} in else")
            otherwise, stop = self._nodes(("end",))
            if stop is not None and stop[1] == "else":
                raise self._fail(stop, "expected end; found {{else}}")
        self._close("end")
        del self._variables[outer:]
        return (kind, pipeline, body, otherwise)

    def _pipeline(self, context: str, stop: str) -> tuple[Any, ...]:
        names, assigned = self._declarations(context)
        commands: list[list[Node]] = []
        while True:
            token = self._solid()
            if token[0] == stop:
                if not commands:
                    raise self._fail(token, f"missing value for {context}")
                self._check(commands, token)
                self._variables += names if not assigned else []
                return (names, assigned, commands)
            if token[0] in ("bool", "name", "dot", "field", "nil", "number", "string", "variable", "left"):
                self._at -= 1
                commands.append(self._command())
            else:
                raise self._fail(token, f"unexpected {_shown(token)} in {context}")

    def _check(self, commands: list[list[Node]], token: Token) -> None:
        for stage, command in enumerate(commands[1:], 2):
            if command[0][0] in ("value", "dot"):
                raise self._fail(token, f"non executable command in pipeline stage {stage}")

    def _declarations(self, context: str) -> tuple[list[str], bool]:
        start = self._at
        names: list[str] = []
        while True:
            token = self._solid()
            if token[0] != "variable":
                break
            mark = self._at
            following = self._solid()
            if following[0] in ("declare", "assign"):
                return [*names, token[1]], following[0] == "assign"
            if following[0] == "comma" and context == "range" and not names:
                names.append(token[1])
                continue
            if following[0] == "comma":
                raise self._fail(following, f"too many declarations in {context}")
            self._at = mark
            break
        self._at = start
        return [], False

    def _command(self) -> list[Node]:
        operands: list[Node] = []
        while True:
            operands.append(self._operand())
            token = self._next()
            if token[0] == "space":
                following = self._solid()
                if following[0] == "pipe":
                    return operands
                self._at -= 1
                if following[0] in ("close", "right", "eof"):
                    return operands
                continue
            if token[0] == "pipe":
                return operands
            self._at -= 1
            if token[0] in ("close", "right"):
                return operands
            raise self._fail(token, f"unexpected {_shown(token)} in operand")

    def _operand(self) -> Node:
        token = self._solid()
        operand = self._term(token)
        names: list[str] = []
        second = self._peek()[2]  # where Go says that a chain of fields is
        while self._peek()[0] == "field":
            names.append(self._next()[1])
        if not names:
            return operand
        if operand[0] == "field":
            return ("field", (*operand[1], *names), second)
        if operand[0] == "variable":
            return ("variable", operand[1], (*operand[2], *names), second)
        if operand[0] in ("value", "dot"):
            raise self._fail(token, f"unexpected . after term {_shown(token)}")
        return ("chain", operand, tuple(names), token[2])

    def _term(self, token: Token) -> Node:
        kind, text, position = token
        if kind == "dot":
            return ("dot", position)
        if kind == "field":
            return ("field", (text,), position)
        if kind == "variable":
            if text not in self._variables:
                raise self._fail(token, f'undefined variable "{text}"')
            return ("variable", text, (), position)
        if kind == "name":
            if text not in FUNCTIONS and text not in ("and", "or"):
                raise self._fail(token, f'function "{text}" not defined')
            return ("function", text, position)
        if kind == "left":
            return ("pipeline", self._pipeline("parenthesized pipeline", "right"), position)
        if kind == "number":
            return ("value", _number(text), position)
        if kind in ("string", "bool", "nil"):
            value: object = text if kind == "string" else (text == "true" if kind == "bool" else None)
            return ("value", value, position)
        raise self._fail(token, f"unexpected {_shown(token)} in operand")


def _number(text: str) -> int | float:
    try:
        return int(text, 0)
    except ValueError:
        return float(text)


def _shown(token: Token) -> str:
    if token[0] == "eof":
        return "EOF"
    if token[0] in ("name", "field"):
        return f"<{'.' if token[0] == 'field' else ''}{token[1]}>"
    return f'"{token[1]}"' if token[0] not in ("string",) else f'"\\"{token[1]}\\""'


def parse(text: str) -> list[Node]:
    """The tree of ``text``. Raises TemplateError in Go's words."""
    return Parser(text).template()
