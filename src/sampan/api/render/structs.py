"""Structs that carry Docker's field names, with Go's omitempty where Docker has it."""

from __future__ import annotations

from typing import Any

import msgspec

_PLANS: dict[type, tuple[tuple[str, str, bool], ...]] = {}


def render_struct(value: msgspec.Struct) -> dict[str, Any]:
    """The struct's fields by their wire names, in order; those of ``OMITTED_WHEN_EMPTY`` only when set.

    Nested structs are left to the encoder.
    """
    kind = type(value)
    plan = _PLANS.get(kind)
    if plan is None:
        omitted: frozenset[str] = getattr(kind, "OMITTED_WHEN_EMPTY", frozenset())
        names = zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True)
        plan = _PLANS[kind] = tuple((wire, name, wire in omitted) for wire, name in names)
    shown = {}
    for wire, name, omit in plan:
        field = getattr(value, name)
        # Go leaves out nil pointers, but not pointers to zero ("StopTimeout": 0, "Init": false).
        if not omit or field or (field is not None and wire in _POINTERS):
            shown[wire] = field
    return shown


_POINTERS = frozenset(("StopTimeout", "Init"))
