"""The composition root: builds everything in the order in which it depends on each other, runs it, and stops it.

It decides nothing; whoever looks for what happens on a delivery starts at ``web/receiver.py``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiohttp import web

from sidecar import __version__, tokens
from sidecar.control import DaemonControl
from sidecar.core.decide import Cause
from sidecar.core.target import Kind
from sidecar.credentials import Credentials
from sidecar.dispatch import Dispatcher
from sidecar.errors import Misconfigured, Transient, Unreachable
from sidecar.executor import Executor
from sidecar.ids import new_id
from sidecar.journal import SqliteJournal
from sidecar.logs import FactLog, Redaction, configure_logs
from sidecar.ports import Ports
from sidecar.reconciler import Reconciler
from sidecar.registry import OciRegistry
from sidecar.settings import Settings
from sidecar.sources.allowed import Allowed
from sidecar.targets._engine import Engine
from sidecar.targets.containers import base_name
from sidecar.targets.docker import DockerDriver, Scope
from sidecar.targets.image import ImageDriver
from sidecar.targets.images import Images, Prune
from sidecar.web.api import api_routes, under
from sidecar.web.auth import bearer_guard, open_guard
from sidecar.web.events import EventStream
from sidecar.web.pages import page_routes
from sidecar.web.receiver import RUNNER_OPTIONS, NamedSource, Receiver, senders
from sidecar.web.sockets import control_socket
from sidecar.workqueue import WorkQueue

DONE, UNREACHABLE = 0, 3
# What an engine tells of its containers comes in bursts, and a container may restart for ever.
_ENGINE_QUIET_SECONDS = 10.0
_RECONNECT_SECONDS = 2.0
_CERTS_FOLDER = Path("/etc/docker/certs.d")
# Of the engine's events those after which a container may be another one, or be healthy or not.
_TELLING = frozenset({"create", "start", "die", "destroy", "rename", "update", "health_status"})


class SystemClock:
    """The time of this machine."""

    def now(self) -> float:
        """Give the time of day, in seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Give a time that only ever goes forward."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """Everything that works together, built and not yet started."""

    settings: Settings
    engine: Engine
    ports: Ports
    journal: SqliteJournal
    queue: WorkQueue
    reconciler: Reconciler
    dispatcher: Dispatcher
    control: DaemonControl
    stream: EventStream
    stopping: asyncio.Event
    webhook_token: str
    admin_token: str


async def run(settings: Settings) -> int:
    """Run the daemon until it is told to stop, and give its exit status."""
    redaction = configure_logs(level=settings.log_level, style=settings.log_format, secrets=settings.secret_values())
    started = time.monotonic()
    stream = EventStream()
    events = FactLog(redaction, stream)
    try:
        async with AsyncExitStack() as stack:
            daemon = await _build(settings, stack, events=events, stream=stream, redaction=redaction)
            await _serve(daemon, stack)
            events.publish(
                "daemon.started",
                version=__version__,
                env=settings.env,
                host=settings.host,
                port=settings.port,
                admin_port=settings.admin_port,
                state_dir=str(settings.state_dir),
                pid=os.getpid(),
            )
            await _work(daemon)
    except Unreachable as error:
        events.publish("daemon.stopped", reason=str(error), duration_seconds=round(time.monotonic() - started, 3))
        return UNREACHABLE
    events.publish("daemon.stopped", duration_seconds=round(time.monotonic() - started, 3))
    return DONE


async def _build(
    settings: Settings, stack: AsyncExitStack, *, events: FactLog, stream: EventStream, redaction: Redaction
) -> Daemon:
    clock = SystemClock()
    _make_folder(settings.state_dir)
    journal = await SqliteJournal.open(settings.state_dir, clock=clock)
    stack.push_async_callback(journal.close)
    webhook_token, admin_token = _tokens(settings)
    redaction.add(webhook_token, admin_token)

    engine = await Engine.connect(settings.docker_host)
    stack.push_async_callback(engine.close)
    credentials = _credentials(settings)
    registry = await stack.enter_async_context(
        OciRegistry(
            clock=clock,
            credentials=credentials.find,
            insecure=frozenset(settings.insecure_registries),
            ca_file=settings.registry_ca_file,
            certs_folder=_CERTS_FOLDER,
        )
    )
    images = Images(engine, events=events, authorize=_authorize(credentials), prune=Prune(settings.prune))
    containers = DockerDriver(
        engine, images, events=events, scope=Scope(default_enable=settings.default_enable, name=settings.scope)
    )
    queue = WorkQueue(clock=clock, debounce_seconds=settings.debounce_seconds)
    ports = Ports(
        registry=registry,
        drivers={
            Kind.DOCKER: containers,
            Kind.IMAGE: ImageDriver(engine, images, journal=journal, clock=clock),
        },
        journal=journal,
        hints=queue,
        clock=clock,
        events=events,
    )
    stopping = asyncio.Event()
    executor = Executor(ports, turns=asyncio.Semaphore(settings.max_parallel_rollouts), stopping=stopping)
    reconciler = Reconciler(ports, executor)
    dispatcher = Dispatcher(ports, pull_repositories=settings.pull_repositories, settle_seconds=settings.settle_seconds)
    control = DaemonControl(
        ports,
        reconciler,
        accept=dispatcher.accept,
        unmanaged=containers.unmanaged,
        probes={"engine": _engine_probe(engine), "journal": journal.probe},
    )
    return Daemon(
        settings=settings,
        engine=engine,
        ports=ports,
        journal=journal,
        queue=queue,
        reconciler=reconciler,
        dispatcher=dispatcher,
        control=control,
        stream=stream,
        stopping=stopping,
        webhook_token=webhook_token,
        admin_token=admin_token,
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        msg = f"making the state folder {str(folder)!r}: {error.strerror}; let SIDECAR_STATE_DIR name one that can be"
        raise Misconfigured(msg) from error


def _tokens(settings: Settings) -> tuple[str, str]:
    given = (settings.token, settings.admin_token)
    names = (tokens.WEBHOOK, tokens.ADMIN)
    webhook, admin = (
        secret.get_secret_value() if secret is not None else tokens.keep_token(settings.state_dir, name)
        for secret, name in zip(given, names, strict=True)
    )
    return webhook, admin


def _credentials(settings: Settings) -> Credentials:
    explicit = {}
    if settings.registry_username is not None and settings.registry_password is not None:
        explicit["docker.io"] = (settings.registry_username, settings.registry_password.get_secret_value())
    return Credentials(config_file=settings.registry_credentials, explicit=explicit)


def _authorize(credentials: Credentials) -> Callable[[str], Awaitable[dict[str, str] | None]]:
    async def authorize(host: str) -> dict[str, str] | None:
        credential = await credentials.find(host)
        return credential.auth_config() if credential is not None else None

    return authorize


def _engine_probe(engine: Engine) -> Callable[[], Awaitable[str | None]]:
    async def probe() -> str | None:
        try:
            await engine.ping()
        except Transient as error:
            return str(error)
        return None

    return probe


async def _serve(daemon: Daemon, stack: AsyncExitStack) -> None:
    """Listen: for senders, for people with the admin token, and at the control socket."""
    settings, control = daemon.settings, daemon.control
    receiver = Receiver(
        senders=senders(_named_sources(settings), tokens=[daemon.webhook_token]),
        allowed=Allowed.of(pushers=settings.allowed_pushers, repositories=settings.allowed_repositories),
        accept=daemon.journal.accept,
        on_accepted=daemon.dispatcher.accept,
        clock=daemon.ports.clock,
        new_id=new_id,
        events=daemon.ports.events,
    )
    public = [*receiver.routes(), *page_routes(control, title=settings.title, env=settings.env)]
    guarded = api_routes(control, daemon.stream, bearer_guard(daemon.admin_token))
    if settings.root_path:
        public += receiver.routes(settings.root_path)
    own = under(settings.root_path, guarded)
    if settings.admin_port is None:
        await _listen(stack, [*public, *own], host=settings.host, port=settings.port)
    else:
        await _listen(stack, public, host=settings.host, port=settings.port)
        await _listen(
            stack,
            [*own, *page_routes(control, title=settings.title, env=settings.env)],
            host=settings.host,
            port=settings.admin_port,
        )
    runner = await _runner(stack, api_routes(control, daemon.stream, open_guard))
    await web.SockSite(runner, control_socket(settings.state_dir)).start()


def _named_sources(settings: Settings) -> Mapping[str, NamedSource]:
    named = {}
    for name, source in settings.sources.items():
        authorization = getattr(source, "authorization", None)
        registry = getattr(source, "registry", None)
        named[name] = NamedSource(
            kind=source.kind,
            tokens=source.tokens,
            authorization=authorization.get_secret_value() if authorization is not None else None,
            options={"registry": registry} if registry is not None else {},
        )
    return named


async def _runner(stack: AsyncExitStack, routes: Iterable[web.AbstractRouteDef]) -> web.AppRunner:
    application = web.Application()
    application.add_routes(routes)
    runner = web.AppRunner(application, handle_signals=False, shutdown_timeout=1.0, **RUNNER_OPTIONS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return runner


async def _listen(stack: AsyncExitStack, routes: Iterable[web.AbstractRouteDef], *, host: str, port: int) -> None:
    try:
        await web.TCPSite(await _runner(stack, routes), host, port).start()
    except OSError as error:
        msg = f"listening on {host}:{port}: {error.strerror}; set SIDECAR_HOST and SIDECAR_PORT to what is free"
        raise Misconfigured(msg) from error


async def _work(daemon: Daemon) -> None:
    """Run every loop until a signal comes; then give the step in hand its time, and leave the rest to the next."""
    stopping, events = daemon.stopping, daemon.ports.events
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with asyncio.TaskGroup() as tasks:
        working = {
            tasks.create_task(daemon.queue.run(_pass(daemon), stopping), name="queue"),
            tasks.create_task(daemon.dispatcher.run(stopping), name="dispatcher"),
        }
        looking = {
            tasks.create_task(_look_at_all(daemon), name="resync"),
            tasks.create_task(_follow_engine(daemon), name="engine events"),
        }
        await stopping.wait()
        grace = daemon.settings.stop_grace_seconds
        events.publish("daemon.stopping", grace_seconds=grace)
        daemon.stream.close()
        daemon.dispatcher.wake()
        for task in looking:
            task.cancel()
        _, unfinished = await asyncio.wait(working, timeout=grace)
        for task in unfinished:
            task.cancel()


def _pass(daemon: Daemon) -> Callable[[str, Cause], Awaitable[float | None]]:
    async def run_pass(target_id: str, cause: Cause) -> float | None:
        again_in = await daemon.reconciler.run_pass(target_id, cause)
        if again_in is None:
            await daemon.dispatcher.done(target_id, cause.delivery_ids, daemon.reconciler.outcome_of(target_id))
        return again_in

    return run_pass


async def _look_at_all(daemon: Daemon) -> None:
    """Enqueue at the start what was left open and everything there is, and everything again as often as set."""
    await _eventually(daemon, partial(_resume, daemon))
    kind = "start-up"
    while True:
        await _eventually(daemon, partial(_ask_all, daemon, kind))
        if not daemon.settings.resync_seconds:
            return
        await asyncio.sleep(daemon.settings.resync_seconds)
        kind = "resync"


async def _resume(daemon: Daemon) -> None:
    now = daemon.ports.clock.now()
    for rollout in await daemon.journal.open_rollouts():
        daemon.queue.add(rollout.target_id, Cause("start-up", now, rollout.delivery_ids))
    for delivery in await daemon.journal.unfinished_deliveries():
        daemon.dispatcher.accept(delivery)


async def _ask_all(daemon: Daemon, kind: str) -> None:
    """Enqueue everything there is; of a project one target, for its pass judges all of them."""
    now, projects = daemon.ports.clock.now(), set[str]()
    for driver in daemon.ports.drivers.values():
        for target in await driver.list():
            if target.project is None or target.project not in projects:
                daemon.queue.add(target.id, Cause(kind, now))
            projects |= {target.project} if target.project else set()


async def _eventually(daemon: Daemon, act: Callable[[], Awaitable[None]]) -> None:
    """Do something that engine or journal may refuse for now."""
    while True:
        try:
            return await act()
        except Transient as error:
            daemon.ports.events.publish("engine.failed", reason=str(error))
            await asyncio.sleep(_RECONNECT_SECONDS)


async def _follow_engine(daemon: Daemon) -> None:
    """Take what the engine tells of its containers as hints; once it was away, look at everything."""
    while True:
        try:
            async for event in daemon.engine.events():
                _take_event(daemon, event)
        except Transient as error:
            daemon.ports.events.publish("engine.failed", reason=str(error))
        await asyncio.sleep(_RECONNECT_SECONDS)
        await _eventually(daemon, daemon.engine.ping)
        daemon.ports.events.publish("engine.connected", url=daemon.settings.docker_host)
        await _eventually(daemon, partial(_ask_all, daemon, "engine"))


def _take_event(daemon: Daemon, event: Mapping[str, object]) -> None:
    actor = event.get("Actor")
    attributes = actor.get("Attributes", {}) if isinstance(actor, dict) else {}
    action, name = str(event.get("Action", "")).partition(":")[0], str(attributes.get("name", ""))
    target_id = f"docker:{base_name(name)}"
    if action not in _TELLING:
        return
    daemon.queue.wake(target_id)
    if target_id in daemon.reconciler.last or attributes.get("sidecar.enable"):
        cause = Cause("engine", daemon.ports.clock.now())
        daemon.queue.add(target_id, cause, delay_seconds=_ENGINE_QUIET_SECONDS)
