"""Sidecar's accept path with everything on: token, pydantic, allow lists, journal on disk, log line, event stream.

What comes after it (engine, registry) is left out: a kept delivery is handed to a set of names. `python ours.py PORT
DIR` writes the journal and the log into DIR.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from aiohttp import web

from sidecar.ids import new_id
from sidecar.journal import SqliteJournal
from sidecar.logs import FactLog, configure_logs
from sidecar.ports import Delivery
from sidecar.sources.allowed import Allowed
from sidecar.web.events import EventStream
from sidecar.web.receiver import RUNNER_OPTIONS, NamedSource, Receiver, senders

TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of this benchmark
ALLOWED_PUSHERS = ["svc-*", "trusted*"]
SWITCH_SECONDS = 0.0005  # as in app.py
ALLOWED_REPOSITORIES = ["library/*", "shop/*"]


class SystemClock:
    """The time of this machine."""

    def now(self) -> float:
        """Give the time of day."""
        return time.time()

    def monotonic(self) -> float:
        """Give a time that only goes forward."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


async def serve(port: int, folder: Path) -> None:
    """Serve until killed."""
    sys.setswitchinterval(SWITCH_SECONDS)
    queue: set[str] = set()

    def enqueue(delivery: Delivery) -> None:
        queue.update(hint.ref.name for hint in delivery.hints)

    clock = SystemClock()
    with (folder / "log").open("wb") as log:
        redaction = configure_logs(style="json", secrets=[TOKEN], stream=log)
        journal = await SqliteJournal.open(folder, clock=clock)
        kinds = ("dockerhub", "distribution", "generic")
        receiver = Receiver(
            senders=senders({kind: NamedSource(kind=kind) for kind in kinds}, tokens=[TOKEN]),
            allowed=Allowed.of(pushers=ALLOWED_PUSHERS, repositories=ALLOWED_REPOSITORIES),
            accept=journal.accept,
            on_accepted=enqueue,
            on_wrong_credential=lambda _: None,
            clock=clock,
            new_id=new_id,
            events=FactLog(redaction, EventStream()),
        )
        application = web.Application()
        application.add_routes(receiver.routes())
        runner = web.AppRunner(application, **RUNNER_OPTIONS)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
