"""YAML as people write it: whatever stands there, the only error is `yaml.YAMLError`.

Owns the call of PyYAML, which lets other errors out for a date such as `2026-13-45`, for `!!int x`, and for
lists that are nested too deep, and which takes the last of two equal keys. Invariant: what comes out is a
tree that a caller may walk (see `measure`), with no key given twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import yaml

from registry.settings.bounds import MOST_CHARACTERS, MOST_VALUES, Place, RepeatedKey, measure

_MERGE = "tag:yaml.org,2002:merge"


class RepeatedYamlKey(yaml.YAMLError, RepeatedKey):
    """A key that stands twice in one mapping."""


class _Loader(yaml.SafeLoader):
    """PyYAML's own, which counts what merges bring in: each may merge the one before ten times."""

    merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put what `<<` names into `node`; below, it calls itself for each mapping that is named."""
        super().flatten_mapping(node)
        self.merged += len(node.value)
        if self.merged > MOST_VALUES:
            raise yaml.YAMLError(f"its merges (<<) bring in more than {MOST_VALUES} keys")


def parse_yaml(text: str, *, repeats: bool = False) -> object:
    """Return what `text` holds; dates and times are objects of their own.

    `repeats` takes the last of equal keys, which files of others than us may have.

    Raises: yaml.YAMLError: of these, RepeatedYamlKey.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text)} characters; {MOST_CHARACTERS} are read at most")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if not repeats:
            _refuse_repeats(loader, node)
        found: object = loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("nested too deep") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise yaml.YAMLError(f"a value is not what it is written as ({error})") from error
    finally:
        loader.dispose()
    try:
        measure(found)
    except ValueError as error:
        raise yaml.YAMLError(str(error)) from None
    return found


def lines_in_yaml(text: str) -> Callable[[Place], int | None]:
    """Return what finds the line of the key or item at a place of a document; None: it is not there.

    The document was parsed before. Takes JSON as well, where tabs may stand between values.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
    try:
        root = yaml.compose(text.replace("\t", " "), loader)
    except (yaml.YAMLError, ValueError):
        return lambda _: None
    return partial(_line, root)


def _line(node: yaml.Node | None, path: Place) -> int | None:
    line = None
    for part in path:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode) and (found := _pair(node, str(part))) is not None:
            key, node = found
            line = key.start_mark.line + 1
        else:
            return None
    return line


def _pair(node: yaml.MappingNode, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    """Return the pair of a mapping, also one that a merge brings in."""
    for key, value in node.value:
        if key.value == name:
            return key, value
    for key, value in node.value:
        if key.tag == _MERGE:
            merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
            found = (_pair(one, name) for one in merged if isinstance(one, yaml.MappingNode))
            return next((one for one in found if one is not None), None)
    return None


def _refuse_repeats(loader: yaml.SafeLoader, root: yaml.Node) -> None:
    """Refuse a mapping with a key twice; what a merge (`<<`) brings in may be given again."""
    walked, waiting = set[int](), [root]
    while waiting:
        node = waiting.pop()
        if id(node) in walked or not isinstance(node, yaml.CollectionNode):
            continue
        walked.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _refuse_repeat(loader, node)
            waiting.extend(value for _, value in reversed(node.value))
        else:
            waiting.extend(reversed(node.value))


def _refuse_repeat(loader: yaml.SafeLoader, node: yaml.MappingNode) -> None:
    lines: dict[object, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        value, line = loader.construct_object(key), key.start_mark.line + 1  # `on` and `yes` are one key
        if value in lines:
            raise RepeatedYamlKey(key.value, line, lines[value])
        lines[value] = line
