"""A tree and a value to text.

Two modes, as Docker uses them: rows of a list have a fixed set of fields (``Row``), and a field that is not
there is an error; values from JSON are structs and maps (see ``shapes``), and only maps may lack a key.
"""

from __future__ import annotations

from sampan.wire.template.functions import FUNCTIONS
from sampan.wire.template.lexer import TemplateError
from sampan.wire.template.numbers import fits
from sampan.wire.template.values import NO_VALUE, Struct, kind, shown, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Node = tuple[Any, ...]


class Row:
    """A value with named fields that are computed when asked for, as a list command's rows are.

    ``kind``: the name that an error shows. A field that takes an argument (``.Label "x"``) is a method.
    """

    kind = "*formatter.Context"

    def field(self, name: str) -> Any:
        """The field, or a callable for one with arguments. Raises LookupError."""
        raise LookupError(name)


_DEEPEST = 150
"""Templates that use one another: Go stops at 100000, and its message says so."""


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Run:
    """One execution: the output so far and the variables in scope."""

    __slots__ = ("_aliases", "_depth", "_name", "_out", "_source", "_templates", "_text", "_variables")

    def __init__(self, value: Any, text: str, aliases: dict[str, str]) -> None:
        self._out: list[str] = []
        self._variables: list[tuple[str, Any]] = [("$", value)]
        self._text = text
        self._aliases = aliases
        self._templates: dict[str, list[Node]] = {}
        self._name = ""
        self._source: Node = ()  # where a piped value came from
        self._depth = 0

    def fail(self, position: int, context: str, message: str) -> TemplateError:
        line = self._text.count("\n", 0, position) + 1
        column = position - (self._text.rfind("\n", 0, position) + 1)
        return TemplateError(
            f'template: :{line}:{column}: executing "{self._name}" at <{context}>: {message}'
        )

    def walk(self, nodes: Sequence[Node], dot: Any) -> None:
        for node in nodes:
            kind = node[0]
            if kind == "text":
                self._out.append(node[1])
            elif kind == "action":
                value = self.pipeline(node[1], dot)
                if not node[1][0]:
                    self._out.append(shown(value))
            elif kind == "range":
                self._range(node, dot)
            elif kind in ("if", "with"):
                self._branch(node, dot)
            elif kind == "define":
                self._templates[node[1]] = node[2]
            elif kind == "template":
                self._template(node, dot)
            elif kind == "break":
                raise _Break
            else:
                raise _Continue

    def result(self) -> str:
        return "".join(self._out)

    def _template(self, node: Node, dot: Any) -> None:
        """Write the template of that name for the pipeline's value, or for nothing."""
        _, name, pipeline, position = node
        body = self._templates.get(name)
        if body is None or self._depth >= _DEEPEST:
            written = f" {_pipeline(pipeline)}" if pipeline is not None else ""
            why = "exceeded maximum template depth (100000)" if body else f'template "{name}" not defined'
            raise self.fail(position, f'{{{{template "{name}"{written}}}}}', why)
        value = NO_VALUE if pipeline is None else self.pipeline(pipeline, dot)
        outer = self._variables, self._name
        self._variables, self._name = [("$", value)], name
        self._depth += 1
        self.walk(body or (), value)
        self._depth -= 1
        self._variables, self._name = outer

    def _branch(self, node: Node, dot: Any) -> None:
        mark = len(self._variables)
        value = self.pipeline(node[1], dot)
        if truth(value):
            self.walk(node[2], value if node[0] == "with" else dot)
        else:
            self.walk(node[3], dot)
        del self._variables[mark:]

    def _range(self, node: Node, dot: Any) -> None:
        names = node[1][0]
        mark = len(self._variables)
        value = self.pipeline((names and [], False, node[1][2]), dot)
        items = self._items(value, node)
        if not items:
            self.walk(node[3], dot)
            return
        for key, item in items:
            bound = {1: (item,), 2: (key, item)}.get(len(names), ())
            self._variables += zip(names, bound, strict=True)
            try:
                self.walk(node[2], item)
            except _Continue:
                continue
            except _Break:
                break
            finally:
                del self._variables[mark:]

    def _items(self, value: Any, node: Node) -> list[tuple[Any, Any]]:
        if isinstance(value, list):
            return list(enumerate(value))
        if isinstance(value, dict):
            return [(key, value[key]) for key in sorted(value)]
        operand = node[1][2][0][0]
        if isinstance(value, int) and not isinstance(value, bool):
            if len(node[1][0]) > 1:
                message = f"can't use {value} to iterate over more than one variable"
                raise self.fail(_position(operand), _context(operand), message)
            return [(number, number) for number in range(value)]
        if value is None or value is NO_VALUE:
            return []
        raise self.fail(_position(operand), _context(operand), f"range can't iterate over {shown(value)}")

    # -- pipelines -------------------------------------------------------------------------------------

    def pipeline(self, pipeline: tuple[Any, ...], dot: Any) -> Any:
        names, assigned, commands = pipeline
        value: tuple[Any, ...] = ()
        for command in commands:
            value = (self._command(command, dot, value),)
            self._source = command[0]
        for name in names:
            if assigned:
                self._assign(name, value[0], commands[-1][0])
            else:
                self._variables.append((name, value[0]))
        return value[0]

    def _assign(self, name: str, value: Any, source: Node) -> None:
        for at in range(len(self._variables) - 1, -1, -1):
            if self._variables[at][0] == name:
                self._variables[at] = (name, value)
                return
        raise self.fail(_position(source), _context(source), f"undefined variable: {name}")

    def _command(self, command: list[Node], dot: Any, piped: tuple[Any, ...]) -> Any:
        first, arguments = command[0], command[1:]
        if first[0] == "function":
            return self._call(first, arguments, dot, piped)
        given = bool(arguments or piped)
        if first[:2] == ("value", None) and not given:
            raise self.fail(first[-1], "nil", "nil is not a command")
        if first[0] == "pipeline" and given:
            whole = " ".join(_context(one) for one in command)
            raise self.fail(
                _position(first), whole, f"can't give argument to non-function {_pipeline(first[1])}"
            )
        method = first[0] in ("field", "chain") or (first[0] == "variable" and first[2])
        if given and not method:
            raise self.fail(
                _position(first), _context(first), f"can't give argument to non-function {_context(first)}"
            )
        if given:
            return self._operand(
                first, dot, [*(lambda one=one: self._operand(one, dot) for one in arguments), *piped]
            )
        return self._operand(first, dot)

    def _operand(self, node: Node, dot: Any, arguments: list[Any] | None = None) -> Any:
        kind = node[0]
        if kind == "dot":
            return dot
        if kind == "value":
            if isinstance(node[1], int) and not fits(node[1]):
                raise self.fail(_position(node), str(node[1]), f"{node[1]} overflows int")
            return node[1]
        if kind == "field":
            return self._fields(dot, node[1], node, arguments)
        if kind == "variable":
            value = next(value for name, value in reversed(self._variables) if name == node[1])
            return self._fields(value, node[2], node, arguments) if node[2] else value
        if kind == "pipeline":
            return self.pipeline(node[1], dot)
        if kind == "chain":
            return self._fields(self._operand(node[1], dot), node[2], _innermost(node[1]), arguments)
        return self._call(node, [], dot, ())

    def _fields(self, value: Any, names: tuple[str, ...], node: Node, arguments: list[Any] | None) -> Any:
        for at, name in enumerate(names):
            final = (arguments or []) if at == len(names) - 1 else []
            before, value = value, self._field(value, name, node, final)
            if value is None and at < len(names) - 1 and isinstance(before, Struct) and name not in before:
                # Docker tries typed values, and when they fail the document, which has no such field.
                raise self.fail(_position(node), _context(node), f'map has no entry for key "{name}"')
        return value

    def _field(self, value: Any, name: str, node: Node, arguments: list[Any]) -> Any:
        position, context = _position(node), _context(node)
        if isinstance(value, Row):
            try:
                found = value.field(name)
            except LookupError:
                message = f"can't evaluate field {name} in type {value.kind}"
                raise self.fail(position, context, message) from None
            if callable(found):
                return self._method(found, name, node, arguments)
        elif isinstance(value, dict):
            found = self._entry(value, name, node)
        elif value is NO_VALUE:
            return value
        elif value is None:
            raise self.fail(position, context, f"nil pointer evaluating interface {{}}.{name}")
        else:
            raise self.fail(position, context, f"can't evaluate field {name} in type interface {{}}")
        if arguments:
            raise self.fail(position, context, f"{name} is not a method but has arguments")
        return found

    def _entry(self, value: dict[str, Any], name: str, node: Node) -> Any:
        if name in value:
            return value[name]
        other = self._aliases.get(name)
        if other in value:
            return value[other]
        if not isinstance(value, Struct):
            return NO_VALUE
        if name in value.absent:
            return value.absent[name]
        raise self.fail(_position(node), _context(node), f'map has no entry for key "{name}"')

    def _method(self, method: Any, name: str, node: Node, arguments: list[Any]) -> Any:
        if len(arguments) != 1:
            message = f"wrong number of args for {name}: want 1 got {len(arguments)}"
            raise self.fail(_position(node), _context(node), message)
        argument = arguments[0]
        return method(argument() if callable(argument) else argument)

    # -- functions -------------------------------------------------------------------------------------

    def _call(self, node: Node, arguments: list[Node], dot: Any, piped: tuple[Any, ...]) -> Any:
        name = node[1]
        if name in ("and", "or"):
            return self._logic(node, arguments, dot, piped)
        function, fewest, most, types = FUNCTIONS[name]
        number = len(arguments) + len(piped)
        if number < fewest or (most >= 0 and number > most):
            want = f"at least {fewest}" if most != fewest else str(fewest)
            raise self.fail(node[2], name, f"wrong number of args for {name}: want {want} got {number}")
        values = [self._operand(argument, dot) for argument in arguments] + list(piped)
        for at, wanted in enumerate(types):
            source = arguments[at] if at < len(arguments) else node
            if values[at] is NO_VALUE and at >= len(arguments):
                source = self._source
            self._typed(values[at], wanted, source)
        try:
            return function(*values)
        except (ValueError, TypeError) as error:
            written = [_context(argument) for argument in arguments]
            what = str(error).replace("{}", written[0], 1) if name == "call" and written else str(error)
            raise self.fail(node[2], " ".join([name, *written]), f"error calling {name}: {what}") from None

    def _typed(self, value: Any, wanted_type: type, source: Node) -> None:
        if isinstance(value, wanted_type) and not (wanted_type is int and isinstance(value, bool)):
            return
        wanted = {str: "string", int: "int", list: "[]string"}[wanted_type]
        if value is NO_VALUE and source[0] == "field":
            message = f'map has no entry for key "{source[1][-1]}"'
            raise self.fail(_position(source), _context(source), message)
        if source[0] == "value" and wanted_type is list:
            message = f"can't handle {_context(source)} for arg of type []string"
            raise self.fail(_position(source), _context(source), message)
        if source[0] == "value":
            raise self.fail(
                _position(source),
                _context(source),
                f"expected {'integer' if wanted_type is int else wanted}; found {_context(source)}",
            )
        raise self.fail(
            _position(source),
            _context(source),
            f"wrong type for value; expected {wanted}; got {kind(value)}",
        )

    def _logic(self, node: Node, arguments: list[Node], dot: Any, piped: tuple[Any, ...]) -> Any:
        """``and`` and ``or`` stop at the argument that decides."""
        name = node[1]
        if not arguments and not piped:
            raise self.fail(node[2], name, f"wrong number of args for {name}: want at least 1 got 0")
        value: Any = None
        for argument in arguments:
            value = self._operand(argument, dot)
            if truth(value) == (name == "or"):
                return value
        return piped[0] if piped else value


def _position(node: Node) -> int:
    position: int = node[-1]
    return position


def _context(node: Node) -> str:
    kind = node[0]
    if kind == "dot":
        return "."
    if kind == "field":
        return "".join(f".{name}" for name in node[1])
    if kind == "variable":
        return str(node[1]) + "".join(f".{name}" for name in node[2])
    if kind == "function":
        return str(node[1])
    if kind == "value":
        return str(node[2])
    if kind == "chain":
        return _context(node[1]) + "".join(f".{name}" for name in node[2])
    return f"({_pipeline(node[1])})"


def _pipeline(pipeline: tuple[Any, ...]) -> str:
    return " | ".join(" ".join(_context(one) for one in command) for command in pipeline[2])


def _innermost(node: Node) -> Node:
    """What was looked at last when an operand in parentheses had its value: Go names it in a message."""
    while node[0] == "pipeline":
        command = node[1][2][-1]
        node = command[-1] if command[0][0] == "function" else command[0]
    return node


def execute(nodes: list[Node], value: Any, text: str = "", aliases: dict[str, str] | None = None) -> str:
    """Write ``nodes`` for ``value``. ``text`` is the template, for messages; ``aliases`` are other names of
    keys (Go's field names where JSON's differ). Raises TemplateError in Go's words.
    """
    run = _Run(value, text, aliases or {})
    run.walk(nodes, value)
    return run.result()
