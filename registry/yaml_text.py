"""YAML as people write it: whatever stands there, the only error is `yaml.YAMLError`.

Owns the call of PyYAML, which lets other errors out for a date such as `2026-13-45`, for `!!int x`, and for
lists that are nested too deep.
"""

from __future__ import annotations

import yaml


def parse_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> object:
    """Return what `text` holds; dates and times are objects of their own.

    Raises: yaml.YAMLError.
    """
    try:
        found: object = yaml.load(text, loader)  # noqa: S506  a SafeLoader
    except RecursionError:
        raise yaml.YAMLError("nested too deep") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise yaml.YAMLError(f"a value is not what it is written as ({error})") from error
    return found
