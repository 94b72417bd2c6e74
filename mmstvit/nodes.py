"""Read the nodes of a config: their types, and what may be one value or several."""

from collections.abc import Iterator, Mapping


def type_name(node: Mapping) -> str:
    """Return the name of the class that a config builds, without its scope; ``type`` may be the class itself."""
    kind = node.get('type')
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def as_list(value: object) -> list:
    """Return what a config gives as one value or as several: a list, empty for None."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def find_parts(node: object, key: str) -> Iterator[tuple[str, Mapping]]:
    """Yield the parts of a config that has one or a list of them, such as evaluators and heads, with dotted keys."""
    many = isinstance(node, (list, tuple))
    for i, part in enumerate(as_list(node)):
        if isinstance(part, Mapping):
            yield f'{key}.{i}' if many else key, part
