"""How the journal writes values down: rollouts as JSON, deliveries as rows; pure, and the same for every journal.

Reading is lenient towards other versions of Sidecar, so that an older one opens what a newer one wrote: fields that are
not known are dropped, missing ones take their defaults.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any

from sidecar.core.hint import Hint
from sidecar.core.image import Digest, ImageRef
from sidecar.core.policy import Strategy
from sidecar.core.rollout import Phase, Revision, Rollout
from sidecar.core.target import State
from sidecar.ports import Delivery

# id, source, received_at, fate, reason, remote, pusher, callback_url, hints (JSON), body
DeliveryRow = tuple[str, str, float, str, str, str, str, str, str, bytes]


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def encode(values: object) -> str:
    """Write JSON: the same value, the same text, in ASCII (which lone surrogates out of a payload survive)."""
    return _ENCODER.encode(values)


def write_rollout(rollout: Rollout) -> dict[str, Any]:
    """Give a rollout without its plan as what JSON can hold."""
    return {name: _plain(getattr(rollout, name)) for name in _ROLLOUT_FIELDS}


def write_plan(rollout: Rollout) -> str | None:
    """Write what the driver prepared.

    Raises:
        TypeError: it holds what JSON cannot; a defect of the driver.
    """
    return None if rollout.plan is None else encode(dict(rollout.plan))


def read_rollout(values: Mapping[str, Any], plan: str | None = None) -> Rollout:
    """Read a rollout, and its plan where that was asked for.

    Raises:
        ValueError: a value is of a kind that this version does not know.
    """
    known = {name: _READERS.get(name, _same)(values[name]) for name in _ROLLOUT_FIELDS if name in values}
    try:
        return Rollout(**known, plan=None if plan is None else json.loads(plan))
    except TypeError as error:
        msg = f"reading rollout {values.get('id')!r}: {error}"
        raise ValueError(msg) from None


def merge(first: str, changed: str, plan: str | None = None) -> Rollout:
    """Read a rollout that is kept as its first value and what has changed since.

    Raises:
        ValueError: as ``read_rollout``.
    """
    return read_rollout(json.loads(first) | json.loads(changed), plan)


def write_delivery(delivery: Delivery) -> DeliveryRow:
    """Give a delivery as a row."""
    return (
        delivery.id,
        delivery.source,
        delivery.received_at,
        delivery.fate,
        _text(delivery.reason),
        _text(delivery.remote),
        _text(delivery.pusher),
        _text(delivery.callback_url),
        encode([str(hint) for hint in delivery.hints]),
        delivery.body,
    )


def read_delivery(row: Sequence[Any]) -> Delivery:
    """Read a delivery out of its row."""
    delivery_id, source, received_at, fate, reason, remote, pusher, callback_url, hints, body = row
    return Delivery(
        id=delivery_id,
        source=source,
        received_at=received_at,
        fate=fate,
        reason=reason,
        remote=remote,
        pusher=pusher,
        callback_url=callback_url,
        hints=tuple(_read_hints(json.loads(hints))),
        body=body,
    )


def _read_hints(texts: Sequence[str]) -> Iterator[Hint]:
    for text in texts:
        with suppress(ValueError):  # another Sidecar took it for a reference
            yield Hint(ImageRef.parse(text))


_REVISION_FIELDS = tuple(each.name for each in fields(Revision))
_ROLLOUT_FIELDS = tuple(each.name for each in fields(Rollout) if each.name != "plan")


def _plain(value: object) -> object:
    if isinstance(value, Revision):
        return {name: getattr(value, name) for name in _REVISION_FIELDS}
    return list(value) if isinstance(value, tuple) else value


def _read_revision(values: Mapping[str, Any]) -> Revision:
    known = {name: values[name] for name in _REVISION_FIELDS if name in values}
    if known.get("digest") is not None:
        known["digest"] = Digest(known["digest"])
    return Revision(**known)


def _same(value: object) -> object:
    return value


# The fields whose JSON is not the value itself.
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "delivery_ids": tuple,
    "dependents": tuple,
    "recovery": tuple,
    "strategy": Strategy,
    "from_": _read_revision,
    "to": _read_revision,
    "run_state": State,
    "phase": Phase,
}


def _text(text: str) -> str:
    """Replace what UTF-8 cannot hold, so that one hostile payload cannot spoil the batch it is committed with."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
