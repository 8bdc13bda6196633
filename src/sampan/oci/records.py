"""Stand-ins for the standard ``dataclasses`` and ``typing`` in a process that is gone after one command.

The real ones write and compile source for every class, and load a parser of patterns: some 30 ms for what
a start loads, which itself takes 10. These make what the sandbox's modules use of them without. Laws: they
are put in place once, before anything else is imported, and only by ``sampan oci``; what they leave out (that
a frozen value refuses to change) the type checker has seen to.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MISSING = object()


class _Field:
    __slots__ = ("default", "default_factory")

    def __init__(self, default: object = _MISSING, default_factory: Any = None, **_: object) -> None:
        self.default = default
        self.default_factory = default_factory


def dataclass(cls: Any = None, /, **_: object) -> Any:
    """As ``dataclasses.dataclass``."""
    return _record if cls is None else _record(cls)


def _record(cls: Any) -> Any:
    defaults: dict[str, object] = dict(getattr(cls, "_record_defaults", {}))
    for name in cls.__annotations__:
        defaults[name] = cls.__dict__.get(name, _MISSING)
    names = tuple(defaults)

    def init(self: Any, *values: Any, **given: Any) -> None:
        given.update(zip(names, values, strict=False))
        for name, value in given.items():
            if name not in defaults:
                raise TypeError(f"{cls.__name__} has no {name}")
            setattr(self, name, value)
        for name, default in defaults.items():
            if name not in given:
                setattr(self, name, _default(cls, name, default))

    def equal(self: Any, other: Any) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in names)

    cls.__init__ = init
    cls.__eq__ = equal
    cls.__hash__ = lambda self: hash(tuple(getattr(self, name) for name in names))
    cls._record_defaults = defaults
    return cls


def _default(cls: Any, name: str, default: Any) -> Any:
    if default is _MISSING:
        raise TypeError(f"{cls.__name__} needs {name}")
    if isinstance(default, _Field):
        return default.default_factory() if default.default_factory else default.default
    return default


def replace(value: Any, /, **changes: Any) -> Any:
    """A copy of a value with other fields."""
    return value.__class__(**{**{name: getattr(value, name) for name in value._record_defaults}, **changes})


class _Anything:
    """Any name of ``typing``; annotations are never evaluated, but some names are called or decorate."""

    def __new__(cls, decorated: Any = None, /, *_: object, **__: object) -> Any:
        return decorated if callable(decorated) else super().__new__(cls)

    def __class_getitem__(cls, _: object) -> type:
        return cls


def stand_in() -> None:
    """Take the place of the two, unless they are loaded already."""
    module = type(sys)
    if "dataclasses" not in sys.modules:
        values: Any = module("dataclasses")
        values.dataclass, values.field, values.replace = dataclass, _Field, replace
        sys.modules["dataclasses"] = values
    if "typing" not in sys.modules:
        types: Any = module("typing")
        types.TYPE_CHECKING = False
        types.cast = lambda _type, value: value
        types.__getattr__ = lambda _name: _Anything
        sys.modules["typing"] = types
