"""Go's text/template, as far as Docker's ``--format`` uses it.

Three stages, each pure: ``lexer`` cuts the text into tokens, ``parser`` makes a tree of tuples, ``evaluate``
writes it for a value. A value is what JSON gives (dict, list, str, int, float, bool, None) or a ``Row``,
whose fields are columns of a list. Failures are ``TemplateError`` with Go's wording.

    nodes = parse("{{.Names}}\\t{{upper .Image}}")
    text = execute(nodes, row)
"""

from __future__ import annotations

from sampan.wire.template.evaluate import execute
from sampan.wire.template.lexer import TemplateError
from sampan.wire.template.parser import parse

__all__ = ["TemplateError", "execute", "parse"]
