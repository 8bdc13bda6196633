"""Tokens to a tree.

Nodes are tuples, the first item names the kind; positions are offsets into the template, for messages:

    ("text", literal)
    ("action", pipeline)
    ("if" | "with" | "range", pipeline, body, otherwise)      body and otherwise are lists of nodes
    ("break",) ("continue",)
    ("template", name, pipeline or None, pos)
    ("define", name, body)                                    only at the beginning of the whole

    pipeline = (declared names, is assignment, [commands])
    command  = [operands]
    operand  = ("dot", pos) ("field", names, pos) ("variable", name, names, pos) ("function", name, pos)
               ("chain", operand, names, pos) ("pipeline", pipeline, pos)
               ("value", constant, as written, pos)
"""

from __future__ import annotations

from sampan.wire.quoting import quoted
from sampan.wire.template.functions import FUNCTIONS
from sampan.wire.template.lexer import Lexer, TemplateError, failed
from sampan.wire.template.numbers import constant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.wire.template.lexer import Token

    Node = tuple[Any, ...]

_CONTROLS = ("if", "with", "range")
_KEYWORDS = frozenset((*_CONTROLS, "block", "break", "continue", "define", "else", "end", "template"))
_NESTING = 200
"""How deep one thing may lie in another; Go has no bound, and a template is short."""
_END: Token = ("eof", "", -1)


class Parser:
    """Reads one template's tokens from left to right."""

    __slots__ = ("_at", "_depth", "_lexer", "_loops", "_templates", "_tokens", "_variables")

    def __init__(self, text: str) -> None:
        self._lexer = Lexer(text)
        self._tokens = self._lexer.run()
        self._at = 0
        self._variables: list[str] = ["$"]
        self._loops = 0
        self._depth = 0
        self._templates: dict[str, list[Node]] = {}

    def _next(self) -> Token:
        token = self._tokens[self._at] if self._at < len(self._tokens) else _END
        if token[0] == "error":
            raise TemplateError(token[1])
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
        nodes, end = self._nodes((), outermost=True)
        if end is not None:
            raise self._fail(end, f"unexpected {{{{{end[1]}}}}}")
        return [*(("define", name, body) for name, body in self._templates.items()), *nodes]

    def _apart(self, read: Callable[[], None]) -> None:
        """Read a template of its own: it sees no variables and no loop of the one around it."""
        outer = self._variables, self._loops
        self._variables, self._loops = ["$"], 0
        read()
        self._variables, self._loops = outer

    def _define(self) -> None:
        """``{{define "name"}} … {{end}}``"""
        name, _ = self._name("define clause")
        token = self._solid()
        if token[0] != "close":
            raise self._fail(token, f"unexpected {_shown(token)} in define clause")
        self._apart(lambda: self._body(name))

    def _body(self, name: str) -> None:
        body, stop = self._nodes(("else", "end"))
        if stop is not None and stop[1] == "else":
            raise self._fail(stop, "unexpected {{else}} in define clause")
        self._close("end")
        if name in self._templates:
            at = self._tokens[self._at - 1]
            raise self._fail(at, f'template: multiple definition of template "{name}"')
        self._templates[name] = body

    def _block(self) -> Node:
        """``{{block "name" pipeline}} … {{end}}``: defined and used at once."""
        name, place = self._name("block clause")
        pipeline = self._pipeline("block clause", "close")
        self._apart(lambda: self._body(name))
        return ("template", name, pipeline, place)

    def _template(self) -> Node:
        name, place = self._name("template clause")
        token = self._solid()
        if token[0] == "close":
            return ("template", name, None, place)
        self._at -= 1
        return ("template", name, self._pipeline("template clause", "close"), place)

    def _name(self, context: str) -> tuple[str, int]:
        token = self._solid()
        if token[0] != "string":
            raise self._fail(token, f"unexpected {_shown(token)} in {context}")
        return token[1], token[2]

    def _nodes(self, stops: tuple[str, ...], *, outermost: bool = False) -> tuple[list[Node], Token | None]:
        """Nodes up to one of the keywords ``stops`` (or "end"), and the keyword's token."""
        self._depth += 1
        if self._depth > _NESTING:
            raise self._fail(self._peek(), "exceeded maximum template depth")
        try:
            return self._nodes_inside(stops, outermost=outermost)
        finally:
            self._depth -= 1

    def _nodes_inside(self, stops: tuple[str, ...], *, outermost: bool) -> tuple[list[Node], Token | None]:
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
                    self._close(word[1])
                    raise self._fail(word, f"unexpected {{{{{word[1]}}}}}")
                return nodes, word
            if outermost and word[:2] == ("name", "define"):
                self._define()
                continue
            self._at -= 1
            nodes.append(self._action(word))

    def _action(self, word: Token) -> Node:
        if word[0] == "name" and word[1] in _CONTROLS:
            self._solid()
            return self._control(word[1])
        if word[0] == "name" and word[1] in ("template", "block"):
            self._solid()
            return self._template() if word[1] == "template" else self._block()
        if word[0] == "name" and word[1] in ("break", "continue"):
            self._solid()
            if not self._loops:
                raise self._fail(word, f"{{{{{word[1]}}}}} outside {{{{range}}}}")
            self._close(word[1])
            return (word[1],)
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
                context = "input" if following[:2] in (("name", "if"), ("name", "with")) else "else"
                raise self._fail(following, f"unexpected {_shown(following)} in {context}")
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
            if token[0] in _OPERANDS and token[:2] not in _KEYWORD_TOKENS:
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
            raise self._fail(token, f"unexpected . after term {quoted(_written(token))}")
        return ("chain", operand, tuple(names), token[2])

    def _constant(self, token: Token) -> Any:
        kind, text, _ = token
        if kind == "number":
            try:
                return constant(text)
            except ValueError as error:
                raise self._fail(token, str(error)) from None
        if kind == "bool":
            return text == "true"
        return ord(text) if kind == "rune" else text if kind == "string" else None

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
        if kind == "name" and text not in _KEYWORDS:
            if text not in FUNCTIONS and text not in ("and", "or"):
                raise self._fail(token, f'function "{text}" not defined')
            return ("function", text, position)
        if kind == "left":
            self._depth += 1
            if self._depth > _NESTING:
                raise self._fail(token, "max expression depth exceeded")
            inner = self._pipeline("parenthesized pipeline", "right")
            self._depth -= 1
            return ("pipeline", inner, position)
        if kind in _CONSTANTS:
            return ("value", self._constant(token), _written(token), position)
        raise self._fail(token, f"unexpected {_shown(token)} in operand")


_OPERANDS = frozenset(("bool", "name", "dot", "field", "nil", "number", "rune", "string", "variable", "left"))
_CONSTANTS = frozenset(("number", "rune", "string", "bool", "nil"))
_KEYWORD_TOKENS = frozenset(("name", word) for word in _KEYWORDS)
_LONGEST = 10  # characters of a token that a message shows


def _written(token: Token) -> str:
    """A token as it stands in the template."""
    kind, text, _ = token
    if kind == "string":
        return quoted(text)
    return f"'{text}'" if kind == "rune" else text


def _shown(token: Token) -> str:
    """A token as Go's parser names it."""
    kind, text, _ = token
    if kind == "eof":
        return "EOF"
    if kind in ("dot", "nil") or (kind == "name" and text in _KEYWORDS):
        return f"<{text}>"
    text = "." + text if kind == "field" else _written(token)
    return f"{quoted(text[:_LONGEST])}..." if len(text.encode()) > _LONGEST else quoted(text)


def parse(text: str) -> list[Node]:
    """The tree of ``text``. Raises TemplateError in Go's words."""
    return Parser(text).template()
