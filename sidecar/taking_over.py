"""Runs in the one-shot container that updates the daemon's own: carries the rollout that it was given to its gate.

The daemon that runs then, the new one or again the old one, ends the rollout from its journal. There is no second way
to a rollout here either: the executor and the driver are the daemon's.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from sidecar.app import SystemClock, build_drivers, registry_client, registry_credentials
from sidecar.core.decision import Cause
from sidecar.core.rollout import Phase, Rollout
from sidecar.core.target import Kind, State
from sidecar.errors import SidecarError, Transient, Unreachable
from sidecar.executor import Executor, facts_of
from sidecar.handover import HandoverFile, HandoverJournal
from sidecar.journal import SqliteJournal
from sidecar.logs import FactLog, configure_logs
from sidecar.ports import Clock, Events, Journal, Ports
from sidecar.settings_model import Settings
from sidecar.targets._engine import Engine
from sidecar.targets.containers import state_of

DONE, FAILED = 0, 1
# Between two tries where the engine or the journal failed: doubled each time, to the most.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 4.0
_MOST_CONNECTS = 20
_IS_UP = frozenset({State.RUNNING, State.RESTARTING, State.PAUSED})


class _NoHints:
    """The queue of a process that nobody asks for anything."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock

    def add(self, name: str, cause: Cause, *, delay_seconds: float = 0.0) -> None:
        """Forget it."""
        del name, cause, delay_seconds

    def take_hint(self, name: str) -> Cause | None:
        """Give none."""
        del name
        return None

    async def wait_for_hint(self, name: str, seconds: float) -> None:
        """Wait."""
        del name
        await self._clock.sleep(seconds)


async def take_over(settings: Settings) -> int:
    """Carry out the rollout that the daemon handed over, and give the exit status; started again, it goes on."""
    redaction = configure_logs(level=settings.log_level, style=settings.log_format, secrets=settings.secret_values())
    events, clock, file = FactLog(redaction), SystemClock(), HandoverFile(settings.state_dir)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with AsyncExitStack() as stack:
        rollout = file.read()
        if rollout is None or _is_passed_on(rollout):
            return DONE
        engine = await _connected(settings, clock, events)
        stack.push_async_callback(engine.close)
        journal = HandoverJournal(file, is_alone=_alone_on(engine), open_journal=_journal_of(settings, clock))
        credentials = registry_credentials(settings)
        containers, _ = build_drivers(settings, engine, credentials, journal=journal, events=events)
        ports = Ports(
            registry=await stack.enter_async_context(registry_client(settings, credentials, clock)),
            drivers={Kind.DOCKER: containers},
            journal=journal,
            hints=_NoHints(clock),
            clock=clock,
            events=events,
        )
        executor = Executor(ports, turns=asyncio.Semaphore(1), stopping=stopping)
        cause = Cause("self-update", clock.now(), rollout.delivery_ids)
        try:
            await carry_on(executor, file, cause, ports=ports)
        except SidecarError as error:
            events.publish("daemon.failed", reason=str(error))
            return FAILED  # started again by the engine
    return FAILED if stopping.is_set() else DONE


async def carry_on(executor: Executor, file: HandoverFile, cause: Cause, *, ports: Ports) -> None:
    """Carry out what was handed over, without limit: to be started anew a few times would count against the image.

    Raises:
        Refused: it cannot work until somebody changes something.
    """
    pause_seconds = _FIRST_PAUSE_SECONDS
    while (rollout := file.read()) is not None:
        try:
            await executor.carry_out(rollout.as_target(), rollout, cause, until=_is_passed_on)
        except Transient as error:
            ports.events.publish("rollout.delayed", **facts_of(rollout) | {"reason": str(error)})
            await ports.clock.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
        else:
            return


async def _connected(settings: Settings, clock: Clock, events: Events) -> Engine:
    """Find the engine, which may be away for a moment.

    Raises:
        Unreachable: it was not found for more than a minute.
    """
    pause_seconds = _FIRST_PAUSE_SECONDS
    for _ in range(_MOST_CONNECTS):
        try:
            return await Engine.connect(settings.docker_host)
        except Unreachable as error:
            events.publish("engine.failed", reason=str(error))
        await clock.sleep(pause_seconds)
        pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
    return await Engine.connect(settings.docker_host)


def _is_passed_on(rollout: Rollout) -> bool:
    """Say whether a daemon that is well has it in hand: the new one to finish, or the old one that was put back."""
    is_back = rollout.phase is Phase.ROLLING_BACK and rollout.settled
    return not rollout.is_open or rollout.phase is Phase.FINISHING or is_back


def _alone_on(engine: Engine) -> Callable[[Rollout], Awaitable[bool]]:
    async def is_alone(rollout: Rollout) -> bool:
        for ident in filter(None, (rollout.from_.instance, rollout.to.instance, rollout.superseded)):
            inspected = await engine.inspect_container(ident)
            if inspected is not None and state_of(inspected[0]) in _IS_UP:
                return False
        return True

    return is_alone


def _journal_of(
    settings: Settings, clock: SystemClock
) -> Callable[[], Awaitable[tuple[Journal, Callable[[], Awaitable[None]]]]]:
    async def open_journal() -> tuple[Journal, Callable[[], Awaitable[None]]]:
        journal = await SqliteJournal.open(settings.state_dir, clock=clock)
        return journal, journal.close

    return open_journal
