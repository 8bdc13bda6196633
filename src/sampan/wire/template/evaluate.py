"""A tree and a value to text.

Two modes, as Docker uses them: rows of a list have a fixed set of fields (``Row``), and a field that is not
there is an error; values from JSON are structs and maps (see ``shapes``), and only maps may lack a key.
"""

from __future__ import annotations

from sampan.wire.template.functions import FUNCTIONS
from sampan.wire.template.lexer import TemplateError
from sampan.wire.template.values import NO_VALUE, Struct, kind, shown, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
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


OPTIONAL = frozenset(("Health", "SizeRootFs", "SizeRw"))
"""Fields that a document leaves out when they have no value."""


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Run:
    """One execution: the output so far and the variables in scope."""

    __slots__ = ("_aliases", "_out", "_text", "_variables")

    def __init__(self, value: Any, text: str, aliases: dict[str, str]) -> None:
        self._out: list[str] = []
        self._variables: list[tuple[str, Any]] = [("$", value)]
        self._text = text
        self._aliases = aliases

    def fail(self, position: int, context: str, message: str) -> TemplateError:
        line = self._text.count("\n", 0, position) + 1
        column = position - (self._text.rfind("\n", 0, position) + 1)
        return TemplateError(f'template: :{line}:{column}: executing "" at <{context}>: {message}')

    def walk(self, nodes: list[Node], dot: Any) -> None:
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
            elif kind == "break":
                raise _Break
            else:
                raise _Continue

    def result(self) -> str:
        return "".join(self._out)

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
        if isinstance(value, int) and not isinstance(value, bool):
            return [(number, number) for number in range(value)]
        if value is None or value is NO_VALUE:
            return []
        operand = node[1][2][0][0]
        raise self.fail(_position(operand), _context(operand), f"range can't iterate over {shown(value)}")

    # -- pipelines -------------------------------------------------------------------------------------

    def pipeline(self, pipeline: tuple[Any, ...], dot: Any) -> Any:
        names, assigned, commands = pipeline
        value: tuple[Any, ...] = ()
        for command in commands:
            value = (self._command(command, dot, value),)
        for name in names:
            if assigned:
                self._assign(name, value[0])
            else:
                self._variables.append((name, value[0]))
        return value[0]

    def _assign(self, name: str, value: Any) -> None:
        for at in range(len(self._variables) - 1, -1, -1):
            if self._variables[at][0] == name:
                self._variables[at] = (name, value)
                return

    def _command(self, command: list[Node], dot: Any, piped: tuple[Any, ...]) -> Any:
        first, arguments = command[0], command[1:]
        if first[0] == "function":
            return self._call(first, arguments, dot, piped)
        if first == ("value", None, first[-1]):
            raise self.fail(first[-1], "nil", "nil is not a command")
        if first[0] in ("field", "variable", "chain"):
            return self._operand(first, dot, [self._operand(one, dot) for one in arguments] + list(piped))
        if arguments or piped:
            raise self.fail(
                _position(first), _context(first), f"can't give argument to non-function {_context(first)}"
            )
        return self._operand(first, dot)

    def _operand(self, node: Node, dot: Any, arguments: list[Any] | None = None) -> Any:
        kind = node[0]
        if kind == "dot":
            return dot
        if kind == "value":
            return node[1]
        if kind == "field":
            return self._fields(dot, node[1], node, arguments)
        if kind == "variable":
            value = next(value for name, value in reversed(self._variables) if name == node[1])
            return self._fields(value, node[2], node, arguments) if node[2] else value
        if kind == "pipeline":
            return self.pipeline(node[1], dot)
        if kind == "chain":
            return self._fields(self._operand(node[1], dot), node[2], node, arguments)
        return self._call(node, [], dot, ())

    def _fields(self, value: Any, names: tuple[str, ...], node: Node, arguments: list[Any] | None) -> Any:
        for at, name in enumerate(names):
            final = (arguments or []) if at == len(names) - 1 else []
            value = self._field(value, name, node, final)
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
        if name in OPTIONAL:
            return None
        raise self.fail(_position(node), _context(node), f'map has no entry for key "{name}"')

    def _method(self, method: Any, name: str, node: Node, arguments: list[Any]) -> Any:
        if len(arguments) != 1:
            message = f"wrong number of args for {name}: want 1 got {len(arguments)}"
            raise self.fail(_position(node), _context(node), message)
        return method(arguments[0])

    # -- functions -------------------------------------------------------------------------------------

    def _call(self, node: Node, arguments: list[Node], dot: Any, piped: tuple[Any, ...]) -> Any:
        name = node[1]
        if name in ("and", "or"):
            return self._logic(node, arguments, dot, piped)
        function, fewest, most, types = FUNCTIONS[name]
        values = [self._operand(argument, dot) for argument in arguments] + list(piped)
        if len(values) < fewest or (most >= 0 and len(values) > most):
            want = f"at least {fewest}" if most != fewest else str(fewest)
            raise self.fail(node[2], name, f"wrong number of args for {name}: want {want} got {len(values)}")
        for at, wanted in enumerate(types):
            self._typed(values[at], wanted, arguments[at] if at < len(arguments) else node)
        try:
            return function(*values)
        except (ValueError, TypeError) as error:
            context = " ".join([name, *(_context(argument) for argument in arguments)])
            raise self.fail(node[2], context, f"error calling {name}: {error}") from None

    def _typed(self, value: Any, wanted_type: type, source: Node) -> None:
        if isinstance(value, wanted_type) and not (wanted_type is int and isinstance(value, bool)):
            return
        wanted = {str: "string", int: "int", list: "[]string"}[wanted_type]
        if source[0] == "value":
            raise self.fail(
                source[2],
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
        from sampan.wire.quoting import quoted

        return quoted(node[1]) if isinstance(node[1], str) else shown(node[1])
    if kind == "chain":
        return _context(node[1]) + "".join(f".{name}" for name in node[2])
    return "(" + " | ".join(" ".join(_context(one) for one in command) for command in node[1][2]) + ")"


def execute(nodes: list[Node], value: Any, text: str = "", aliases: dict[str, str] | None = None) -> str:
    """Write ``nodes`` for ``value``. ``text`` is the template, for messages; ``aliases`` are other names of
    keys (Go's field names where JSON's differ). Raises TemplateError in Go's words.
    """
    run = _Run(value, text, aliases or {})
    run.walk(nodes, value)
    return run.result()
