"""Does a chat template walk over the parts of a turn's content, or take the content as one text?

Owns the same answer that vLLM gives (`_detect_content_format` of its `vllm/renderers/hf.py`), because it
decides what the template is given. Written anew, as training does not need vLLM installed; a test compares
the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


@lru_cache(maxsize=32)
def walks_over_parts(template: str) -> bool:
    """Tell whether the server gives the text of a turn to `template` in parts.

    False for a template that cannot be parsed: rendering it says why.
    """
    try:
        return any(_walks(_parsed(template)))
    except (TemplateError, TypeError):
        return False


class _Generation(Extension):
    """Transformers' own tag, which marks answers and changes no text."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _parsed(template: str) -> nodes.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    return environment.parse(template)


def _walks(root: nodes.Template) -> Iterator[bool]:
    """Yield True for every loop over a message's content."""
    messages = set(_message_names(root))
    by_macro, in_macros = _macros(root, messages)
    for loop in root.find_all(nodes.For):
        if any(_reads(loop.iter, name, "content") for name in messages):
            yield True
        elif isinstance(loop.iter, nodes.Name):
            named = loop.iter.name
            if named in by_macro.get(id(loop), ()) or (id(loop) not in in_macros and named == "content"):
                yield True


def _macros(root: nodes.Template, messages: set[str]) -> tuple[dict[int, set[str]], set[int]]:
    """Return, by the id of each loop in a macro, the macro's arguments that are given a content; all ids."""
    given: dict[int, set[str]] = {}
    inside: set[int] = set()
    for macro in root.find_all(nodes.Macro):
        found = set(_content_arguments(root, macro, messages))
        for loop in macro.find_all(nodes.For):
            inside.add(id(loop))
            if found:
                given[id(loop)] = found
    return given, inside


def _content_arguments(root: nodes.Template, macro: nodes.Macro, messages: set[str]) -> Iterator[str]:
    names = [argument.name for argument in macro.args]
    for call in root.find_all(nodes.Call):
        if not (isinstance(call.node, nodes.Name) and call.node.name == macro.name):
            continue
        pairs = list(zip(names, call.args, strict=False))
        pairs += [(one.key, one.value) for one in call.kwargs if one.key in names]
        for name, value in pairs:
            if any(_reads(value, message, "content") for message in messages):
                yield name


def _message_names(root: nodes.Template) -> Iterator[str]:
    """Yield what the loops over the messages call one message."""
    lists = list(_names_of(root, "messages"))
    for loop in root.find_all(nodes.For):
        if any(_reads(loop.iter, name) for name in lists):
            yield _name_of(loop.target)


def _names_of(root: nodes.Template, name: str) -> Iterator[str]:
    """Yield `name` and every other name that it, or a part of it, is given to."""
    found = [name]
    for known in found:
        for given in root.find_all(nodes.Assign):
            if _reads(given.node, known):
                target = _name_of(given.target)
                if target not in found:
                    found.append(target)
    yield from found


def _name_of(target: nodes.Node) -> str:
    if not isinstance(target, nodes.Name):
        raise TypeError("vLLM takes a template for one of texts when it gives messages to several names")
    return target.name


def _reads(node: nodes.Node | None, name: str, key: str | None = None) -> bool:
    if isinstance(node, nodes.Filter | nodes.Test):
        return node.node is not None and _reads(node.node, name, key)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        return _reads(node.node, name, key)
    if key is None:
        return _is_name(node, name)
    if isinstance(node, nodes.Getitem):
        return _is_name(node.node, name) and isinstance(node.arg, nodes.Const) and node.arg.value == key
    return isinstance(node, nodes.Getattr) and _is_name(node.node, name) and node.attr == key


def _is_name(node: nodes.Node | None, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.ctx == "load" and node.name == name
