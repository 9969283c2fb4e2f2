"""YAML in which a key comes once and 1e-3 is a number."""

from __future__ import annotations

import re
from typing import Any

import yaml


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that comes twice; by itself YAML keeps the last and says nothing.

    Numbers may be written as 1e-3, as in YAML 1.2; PyYAML by itself wants 1.0e-3.

    Raises:
        yaml.YAMLError: it is no YAML, or a key comes twice; the message says where.

    Example:
        >>> yaml.load("{a: 1, a: 2}", StrictLoader)
        Traceback (most recent call last):
            ...
        yaml.composer.ComposerError: the key 'a' comes twice
          in "<unicode string>", line 1, column 8:
            {a: 1, a: 2}
                   ^
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # here every mapping comes by once, as it is written: merges (<<) are not yet resolved
        node = super().compose_mapping_node(anchor)
        known: list[tuple[str, Any]] = []
        for key, _ in node.value:
            if (key.tag, key.value) in known:
                raise yaml.composer.ComposerError(
                    problem=f"the key {key.value!r} comes twice", problem_mark=key.start_mark
                )
            known.append((key.tag, key.value))
        return node


StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
