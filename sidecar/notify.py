"""Telling others what came of a delivery; so far Docker Hub's legacy callback, for those who ask for it.

The address comes out of a payload, so that it is followed only where it is exactly what Docker Hub itself writes, for
the repository that was pushed. Whatever goes wrong here changes nothing about what was done.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from aiohttp import ClientError, ClientSession, ClientTimeout
from yarl import URL

from sidecar.ports import Delivery, Events

HOST = "registry.hub.docker.com"
TIMEOUT = ClientTimeout(total=5.0)
LONGEST_DESCRIPTION = 255
LONGEST_CONTEXT = 100
MOST_WAITING = 1000
_CALLBACK = re.compile(rf"https://{re.escape(HOST)}(?P<path>/u/(?P<repository>[^/]+/[^/]+)/hook/[0-9a-zA-Z]+/)")
_OK = range(200, 300)

State = Literal["success", "failure", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What came of a callback.

    Attributes:
        is_confirmed: Docker Hub took it.
        reason: what else happened; it names no address, for the address is a credential.
    """

    is_confirmed: bool
    reason: str = ""


class Confirmer:
    """Answers callbacks one after the other beside the line, which never waits for Docker Hub."""

    def __init__(self, session: ClientSession, *, events: Events) -> None:
        self._session = session
        self._events = events
        self._finished: asyncio.Queue[tuple[Delivery, Mapping[str, str]]] = asyncio.Queue(MOST_WAITING)

    def put(self, delivery: Delivery, outcomes: Mapping[str, str]) -> None:
        """Take a delivery that is finished, with what came of it by target; never blocks and never fails."""
        if not delivery.callback_url:
            return
        try:
            self._finished.put_nowait((delivery, outcomes))
        except asyncio.QueueFull:
            self._tell(delivery, Confirmation(is_confirmed=False, reason=f"{MOST_WAITING} others wait already"))

    async def run(self) -> None:
        """Answer until cancelled; what is not answered by then never is, and nothing depends on it."""
        while True:
            delivery, outcomes = await self._finished.get()
            is_well = all(outcome.startswith("keep") for outcome in outcomes.values())
            words = "; ".join(f"{name}: {outcome}" for name, outcome in outcomes.items())
            self._tell(
                delivery,
                await confirm_chain(
                    self._session,
                    delivery,
                    state="success" if is_well else "failure",
                    description=words or "nothing here uses this image",
                    context="Sidecar",
                ),
            )

    def _tell(self, delivery: Delivery, answer: Confirmation) -> None:
        self._events.publish(
            "delivery.confirmed" if answer.is_confirmed else "delivery.unconfirmed",
            delivery_id=delivery.id,
            source=delivery.source,
            reason=answer.reason,
        )


async def confirm_chain(
    session: ClientSession, delivery: Delivery, *, state: State, description: str, context: str, target_url: str = ""
) -> Confirmation:
    """Answer the callback of a delivery, so that a chain of webhooks goes on or ends; never fails.

    https://github.com/docker/docs/pull/20565 removed the description of it: Docker Hub still sends the address, and has
    answered 404 since 2026.
    """
    try:
        path = _checked_path(delivery)
    except ValueError as error:
        return Confirmation(is_confirmed=False, reason=str(error))
    body = {"state": state, "description": description[:LONGEST_DESCRIPTION], "context": context[:LONGEST_CONTEXT]}
    body |= {"target_url": target_url} if target_url else {}
    # Put together anew: of the payload's own text only the path is used.
    url = URL.build(scheme="https", host=HOST, path=path, encoded=True)
    try:
        async with session.post(url, json=body, allow_redirects=False, timeout=TIMEOUT) as response:
            status = response.status
    except (ClientError, OSError, RuntimeError) as error:
        return Confirmation(is_confirmed=False, reason=f"asking {HOST}: {type(error).__name__}")
    if status in _OK:
        return Confirmation(is_confirmed=True)
    return Confirmation(is_confirmed=False, reason=f"{HOST} answered {status}")


def _checked_path(delivery: Delivery) -> str:
    """Give the path of a callback that may be followed.

    Raises:
        ValueError: it may not, and why.
    """
    if not delivery.callback_url:
        msg = "the delivery has no callback"
        raise ValueError(msg)
    address = _CALLBACK.fullmatch(delivery.callback_url)
    if address is None:
        msg = f"the callback is not one of https://{HOST}"
        raise ValueError(msg)
    if address["repository"] not in {hint.ref.repository for hint in delivery.hints}:
        msg = "the callback belongs to another repository than the one pushed"
        raise ValueError(msg)
    return address["path"]
