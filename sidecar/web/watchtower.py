"""Watchtower's API, `/v1/update` and `/v1/metrics`, for scripts and dashboards that were written for it.

It asks for passes as everybody else does, and waits until they are over; there is no second way to a rollout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps

from aiohttp import hdrs, web

from sidecar.control_port import Control
from sidecar.core.policy import parse_duration
from sidecar.endings import ending
from sidecar.ports import Clock
from sidecar.rfc3339 import written
from sidecar.web.api import told, view_response
from sidecar.web.auth import Guard, Handler, bearer_of, is_one_of
from sidecar.web.problem import problem
from sidecar.web.views import ScanOutcomeView, ScanSummaryView, ScanTimingView, ScanView, SkippedScanView

UPDATE, METRICS = "/v1/update", "/v1/metrics"
_RETRY_AFTER_SECONDS = 30
_STATUSES = {200: "completed", 202: "accepted", 408: "timeout"}
_ENDED = frozenset({"target.kept", "target.held"})
_ROLLED_OUT = {"rollout.succeeded": "updated", "rollout.rolled_back": "failed", "rollout.failed": "failed"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one look at a target: ``updated``, ``failed``, ``kept`` or ``held``."""

    word: str
    reason: str


@dataclass(slots=True)
class Listening:
    """What has ended since somebody began to listen; for whom to wait is known a moment later.

    Attributes:
        ended: by delivery and target.
        going_on: what was looked at for a delivery and is looked at again once others are done, on behalf of these.
    """

    ended: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    going_on: set[tuple[str, str]] = field(default_factory=set)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, target_id: str, delivery_ids: Sequence[object], outcome: Outcome | None) -> None:
        """Hear how a look at a target ended, on behalf of some deliveries; None: it goes on."""
        looks = {(str(each), target_id) for each in delivery_ids}
        if outcome is None:
            self.going_on |= looks
            return
        looks |= {look for look in self.going_on if look[1] == target_id}
        self.going_on -= looks
        self.ended |= dict.fromkeys(looks, outcome)
        self.news.set()

    async def outcomes(self, delivery_id: str, target_ids: Sequence[str]) -> dict[str, Outcome]:
        """Wait until every one of these has been looked at on behalf of a delivery."""
        wanted = {target_id: (delivery_id, target_id) for target_id in target_ids}
        while not self.ended.keys() >= set(wanted.values()):
            self.news.clear()
            await self.news.wait()
        return {target_id: self.ended[key] for target_id, key in wanted.items()}


class Scans:
    """Hears what becomes of targets: counts it for the metrics, and tells whoever waits."""

    def __init__(self) -> None:
        self._rolled_out: dict[str, Outcome] = {}
        self._last: dict[str, Outcome] = {}
        self._listening: list[Listening] = []
        self.total = 0
        self.skipped = 0

    def publish(self, event: str, /, **facts: object) -> None:
        """Hear one fact."""
        target_id, reason = str(facts.get("target") or ""), str(facts.get("reason") or "")
        if event in _ROLLED_OUT:
            self._rolled_out[target_id] = Outcome(_ROLLED_OUT[event], reason)
        if event not in _ENDED:
            return
        outcome = None
        if ending(event, reason) is not None:
            word = "kept" if event == "target.kept" else "failed" if facts.get("is_failure") else "held"
            outcome = self._rolled_out.pop(target_id, Outcome(word, reason))
            self._last[target_id] = outcome
            self.total += 1
        ids = facts.get("delivery_ids")
        for each in self._listening:
            each.hear(target_id, ids if isinstance(ids, list) else (), outcome)

    @property
    def is_busy(self) -> bool:
        """Say whether somebody waits."""
        return bool(self._listening)

    @contextmanager
    def listen(self) -> Iterator[Listening]:
        """Hear from now on."""
        listening = Listening()
        self._listening.append(listening)
        try:
            yield listening
        finally:
            self._listening.remove(listening)

    def metrics(self) -> str:
        """Write what Watchtower's dashboards read, as Prometheus has it; gauges are of the last look at each target."""
        words = [outcome.word for outcome in self._last.values()]
        rows = (
            ("watchtower_containers_scanned", "gauge", "Containers that were looked at", len(words)),
            ("watchtower_containers_updated", "gauge", "Of these, updated by the last look", words.count("updated")),
            ("watchtower_containers_failed", "gauge", "Of these, those whose update failed", words.count("failed")),
            ("watchtower_scans_total", "counter", "Looks at containers since the start", self.total),
            ("watchtower_scans_skipped", "counter", "Calls that were skipped since the start", self.skipped),
        )
        return "".join(f"# HELP {name} {text}\n# TYPE {name} {kind}\n{name} {n}\n" for name, kind, text, n in rows)


def token_guard(tokens: Sequence[str]) -> Guard:
    """Let only those pass who send one of these tokens; 401 for all others, as Watchtower's clients know it."""

    def guard(handler: Handler) -> Handler:
        @wraps(handler)
        async def guarded(request: web.Request) -> web.StreamResponse:
            if not is_one_of(bearer_of(request), tokens):
                detail = "send WATCHTOWER_HTTP_API_TOKEN or the admin token: Authorization: Bearer <token>"
                return problem(401, detail, headers={hdrs.WWW_AUTHENTICATE: "Bearer"})
            return await handler(request)

        return guarded

    return guard


def watchtower_routes(
    control: Control, scans: Scans, *, clock: Clock, update_guard: Guard, metrics_guard: Guard
) -> list[web.RouteDef]:
    """Give the routes of Watchtower's API."""
    api = _WatchtowerApi(control, scans, clock)
    update = told(update_guard(api.update))
    return [
        web.route(hdrs.METH_GET, UPDATE, update),
        web.route(hdrs.METH_POST, UPDATE, update),
        web.route(hdrs.METH_GET, METRICS, told(metrics_guard(api.metrics))),
    ]


class _WatchtowerApi:
    def __init__(self, control: Control, scans: Scans, clock: Clock) -> None:
        self._control = control
        self._scans = scans
        self._clock = clock

    async def metrics(self, _request: web.Request) -> web.Response:
        headers = {hdrs.CONTENT_TYPE: "text/plain; version=0.0.4; charset=utf-8", hdrs.CACHE_CONTROL: "no-store"}
        return web.Response(text=self._scans.metrics(), headers=headers)

    async def update(self, request: web.Request) -> web.Response:
        """Have images or everything looked at, and answer when that is over."""
        images, names = _listed(request, "image"), _listed(request, "container")
        try:
            patience = parse_duration(request.query["timeout"]) if "timeout" in request.query else None
        except ValueError as error:
            return problem(422, f"timeout: {error}")
        if not images and not names and self._scans.is_busy:
            return self._skip()
        begun = self._clock.monotonic()
        # Listening begins before anything is asked for, so that no end is missed.
        with self._scans.listen() as listening:
            delivery_id, target_ids, unknown = await self._control.update_matching(images=images, names=names)
            status, outcomes = 202, dict[str, Outcome]()
            if request.query.get("async") != "true":
                status, outcomes = await _patiently(listening.outcomes(delivery_id, target_ids), patience)
        seconds = self._clock.monotonic() - begun
        words = [outcome.word for outcome in outcomes.values()]
        count = {"scanned": len(words), "updated": words.count("updated"), "failed": words.count("failed")}
        body = ScanView(
            status=_STATUSES[status],
            **count,
            summary=ScanSummaryView(**count, restarted=0, skipped=words.count("held")),
            timing=ScanTimingView(duration_ms=round(seconds * 1000), duration=f"{seconds:.3f}s"),
            timestamp=written(self._clock.now()),
            api_version="v1",
            delivery=delivery_id,
            targets={key: ScanOutcomeView(outcome=each.word, reason=each.reason) for key, each in outcomes.items()},
            unknown=unknown,
        )
        return view_response(body, status=status)

    def _skip(self) -> web.Response:
        self._scans.skipped += 1
        body = SkippedScanView(status="skipped", reason="another call has not been answered yet")
        response = view_response(body, status=429)
        response.headers[hdrs.RETRY_AFTER] = str(_RETRY_AFTER_SECONDS)
        return response


async def _patiently(
    waiting: Awaitable[dict[str, Outcome]], patience_seconds: float | None
) -> tuple[int, dict[str, Outcome]]:
    """Wait, but no longer than this; give the status, and what came of it."""
    try:
        async with asyncio.timeout(patience_seconds):
            return 200, await waiting
    except TimeoutError:
        return 408, {}


def _listed(request: web.Request, name: str) -> list[str]:
    """Read a parameter that may be repeated, and may name several at once."""
    texts = (text.strip() for value in request.query.getall(name, ()) for text in value.split(","))
    return list(dict.fromkeys(text for text in texts if text))
