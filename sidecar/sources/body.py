"""From bytes to a model or a reference; whatever is wrong becomes Malformed, which says what was expected."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sidecar.core.hint import Hint
from sidecar.core.image import ImageRef
from sidecar.errors import Malformed

# Of a body in a message; and of a whole message.
_LONGEST_ECHO = 100
_LONGEST_MESSAGE = 400
# Longer than any reference: host, 255 of a repository, 128 of a tag, a digest.
_LONGEST_REFERENCE = 1024
# Of an account's name or an address.
_LONGEST_KEPT = 500


class Body(BaseModel):
    """The base of every body: what it does not name is ignored, for senders add to what they send."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, hide_input_in_errors=True
    )


AnyBody = TypeVar("AnyBody", bound=Body)


def read(model: type[AnyBody], body: bytes, *, expected: str) -> AnyBody:
    """Read a body as a model.

    Raises:
        Malformed: it is something else; the message says where, what was expected there, and never what stood there.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        problem = f"{place}: {first['msg']}" if place else first["msg"]
    msg = f"reading the body: {problem}; expected {expected}"
    raise Malformed(msg[:_LONGEST_MESSAGE])


@lru_cache(maxsize=512)  # the same few are pushed over and over
def read_hint(text: str) -> Hint:
    """Read an image reference out of a body, as a hint: of a digest nothing is left.

    Raises:
        Malformed: it is none.
    """
    try:
        ref = ImageRef.parse(text[:_LONGEST_REFERENCE])
    except ValueError:
        msg = f"reading the body: {shown(text)} is no image reference; expected something like 'host/repository:tag'"
        raise Malformed(msg) from None
    return Hint(ref) if ref.digest is None else Hint.of(ref)


def shown(text: str) -> str:
    """Write a text of a body for a message: quoted, and cut."""
    quoted = repr(text[:_LONGEST_ECHO])
    return quoted if len(quoted) <= _LONGEST_ECHO else quoted[:_LONGEST_ECHO] + "..."


def bounded(text: str | None) -> str | None:
    """Give a text that is kept or compared, cut to a length that any honest one stays below."""
    return text[:_LONGEST_KEPT] if text else None
