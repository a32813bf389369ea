"""List entries with their labels in words of ours: where Watchtower's count, by these; as they are otherwise. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sidecar.core.watchtower import Rules, Translated, translate
from sidecar.core.watchtower_names import PREFIX, Remark
from sidecar.targets.names import base_name, own_name

Json = dict[str, Any]

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"


def translated(entries: Sequence[Json], compat: Rules | None) -> Iterator[tuple[Json, Translated]]:
    """Give each entry of one list call with its labels."""
    if compat is None:
        yield from ((entry, read(entry, None)) for entry in entries)
        return
    projects: dict[str | None, dict[str, str]] = {}
    for entry in entries:
        labels, name = entry.get("Labels") or {}, base_name(own_name(entry))
        projects.setdefault(labels.get(_PROJECT), {})[name] = labels.get(_SERVICE, name)
    for entry in entries:
        yield entry, read(entry, compat, projects[(entry.get("Labels") or {}).get(_PROJECT)])


def read(entry: Json, compat: Rules | None, neighbours: Mapping[str, str] | None = None) -> Translated:
    """Read the labels of one entry.

    Args:
        neighbours: names of the containers of its project, to their services.
    """
    labels = entry.get("Labels") or {}
    if compat is None:
        return Translated(labels=labels)
    return translate(base_name(own_name(entry)), labels, compat, neighbours=neighbours)


def remarks(entries: Iterable[Json], compat: Rules) -> Iterator[tuple[str, Remark]]:
    """Give, by container, what Watchtower's labels ask for that is not done as they say."""
    for entry, labels in translated(list(entries), compat):
        yield from ((own_name(entry), remark) for remark in labels.remarks)


def is_labelled(entry: Json) -> bool:
    """Say whether a container that is no Watchtower has labels for one."""
    labels = entry.get("Labels") or {}
    return not is_watchtower(entry) and any(key.startswith(f"{PREFIX}.") for key in labels)


def is_watchtower(entry: Json) -> bool:
    """Say whether a container is a Watchtower: it marks itself, and updates the same containers as we do."""
    return (entry.get("Labels") or {}).get(PREFIX) == "true"
