"""The names that containers and images bear, and what these tell of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sidecar.core.image import ImageRef

Json = dict[str, Any]

CANDIDATE_SUFFIX = ".sidecar-new"
PARKED_SUFFIX = ".sidecar-old"
HELPER_SUFFIX = ".sidecar-helper"
PREVIOUS_REPOSITORY = "sidecar-previous"

_PROJECT = "com.docker.compose.project"
_LONGEST_TAG = 128
_SHORT_ID = 12
_FULL_ID = 64


def own_name(entry: Json) -> str:
    """Give the name of a list entry; links add names with more slashes."""
    names: list[str] = entry["Names"]
    return next((name[1:] for name in names if name.count("/") == 1), str(entry["Id"])[:12])


def base_name(name: str) -> str:
    """Give the name of the target that a container belongs to, be it in place, candidate or parked."""
    return name.removesuffix(CANDIDATE_SUFFIX).removesuffix(PARKED_SUFFIX)


def is_in_place(entry: Json) -> bool:
    """Say whether a list entry bears a name of its own: it is neither a candidate nor parked."""
    name = own_name(entry)
    return base_name(name) == name


def replacement_of(name: str, entries: Iterable[Json], *, since: float | None) -> str | None:
    """Give the id of what Compose made to replace a container, and did not live to give its name.

    Args:
        since: an older one was left by somebody else; None is never.
    """
    for entry in entries:
        is_for_it = replaced_name(own_name(entry), entry.get("Labels") or {}) == name
        if is_for_it and since is not None and entry["Created"] >= int(since):
            return str(entry["Id"])
    return None


def replaced_name(name: str, labels: Mapping[str, str]) -> str | None:
    """Give whose place a container of this name takes, or gives up, while Compose recreates it; None for any other.

    Compose calls it ``<12 digits of the old one's id>_<name>`` until it is done.
    """
    short_id, _, wanted = name.partition("_")
    is_named_so = bool(wanted) and len(short_id) == _SHORT_ID and is_image_id(short_id)
    return wanted if is_named_so and _PROJECT in labels else None


def is_image_id(reference: str) -> bool:
    """Say whether an image is named by its id and not by a reference."""
    text = reference.removeprefix("sha256:")
    is_hexadecimal = all(character in "0123456789abcdef" for character in text)
    return is_hexadecimal and (reference != text or len(text) in (12, 64))


def is_full_id(reference: str) -> bool:
    """Say whether a container is named by its whole id."""
    return len(reference) == _FULL_ID and is_image_id(reference)


def refers_to(reference: str, ref: str) -> bool:
    """Say whether a container's reference, as it was configured, is the given one, normalised."""
    try:
        return not is_image_id(reference) and str(ImageRef.configured(reference)) == ref
    except ValueError:
        return False


def previous_reference(name: str) -> tuple[str, str]:
    """Give repository and tag under which the image before the last update of a target is kept."""
    tag = "".join(character if character.isalnum() or character in "_.-" else "_" for character in name)
    return PREVIOUS_REPOSITORY, tag[-_LONGEST_TAG:].lstrip(".-") or "_"
