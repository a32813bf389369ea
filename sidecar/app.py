"""The composition root: builds everything in the order in which it depends on each other, runs it, and stops it.

It decides nothing; whoever looks for what happens on a delivery starts at ``web/receiver.py``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from aiohttp import ClientSession, web

from sidecar import __version__, tokens
from sidecar.control import DaemonControl
from sidecar.core.decision import Cause
from sidecar.core.target import Kind
from sidecar.core.watchtower_names import Remark
from sidecar.credentials import Credentials
from sidecar.dispatch import Dispatcher
from sidecar.errors import Misconfigured, Refused, Transient, Unreachable
from sidecar.executor import Executor
from sidecar.handover import HandoverFile
from sidecar.ids import new_id
from sidecar.journal import SqliteJournal
from sidecar.logs import FactLog, Redaction, configure_logs
from sidecar.notify import Confirmer
from sidecar.ports import Clock, Journal, Ports
from sidecar.reconciler import Reconciler
from sidecar.registry import OciRegistry
from sidecar.settings_model import Settings
from sidecar.sources.allowed import Allowed
from sidecar.targets._engine import Engine
from sidecar.targets.discovery import Scope, own_container
from sidecar.targets.docker import DockerDriver
from sidecar.targets.image import ImageDriver
from sidecar.targets.images import Authorize, Images, Prune
from sidecar.targets.own_container import Helper
from sidecar.triggers import Triggers
from sidecar.web.api import api_routes, under
from sidecar.web.auth import bearer_guard, open_guard
from sidecar.web.events import EventStream
from sidecar.web.openapi import docs_routes
from sidecar.web.pages import page_routes
from sidecar.web.receiver import NamedSource, Receiver, senders
from sidecar.web.server import listen, listen_at_socket
from sidecar.web.watchtower import Scans, token_guard, watchtower_routes
from sidecar.workqueue import WorkQueue

DONE, UNREACHABLE = 0, 3
_CERTS_FOLDER = Path("/etc/docker/certs.d")
_MOUNTINFO = Path("/proc/self/mountinfo")
# How long a busy thread keeps the interpreter from another that wants it (Python's own: 5 ms). The journal's needs it
# for an instant after each call to SQLite, while every sender waits.
SWITCH_SECONDS = 0.0005


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
    ports: Ports
    journal: SqliteJournal
    queue: WorkQueue
    reconciler: Reconciler
    dispatcher: Dispatcher
    control: DaemonControl
    stream: EventStream
    scans: Scans
    triggers: Triggers
    confirmer: Confirmer | None
    stopping: asyncio.Event
    webhook_token: str
    admin_token: str


class Heard(NamedTuple):
    """Who hears of every fact beside the log."""

    stream: EventStream
    scans: Scans


async def run(settings: Settings, remarks: Sequence[Remark] = ()) -> int:
    """Run the daemon until it is told to stop, and give its exit status.

    Args:
        remarks: what is set and not honoured, to be told.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    redaction = configure_logs(level=settings.log_level, style=settings.log_format, secrets=settings.secret_values())
    started = time.monotonic()
    heard = Heard(stream=EventStream(), scans=Scans())
    events = FactLog(redaction, *heard)
    for remark in remarks:
        events.publish("setting.ignored", setting=remark.name, reason=remark.says)
    try:
        async with AsyncExitStack() as stack:
            daemon = await _build(settings, stack, events=events, heard=heard, redaction=redaction)
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
        events.publish("daemon.failed", reason=str(error))
        return UNREACHABLE
    events.publish("daemon.stopped", duration_seconds=round(time.monotonic() - started, 3))
    return DONE


async def _build(
    settings: Settings, stack: AsyncExitStack, *, events: FactLog, heard: Heard, redaction: Redaction
) -> Daemon:
    """Build everything, in the order in which it depends on each other."""
    clock = SystemClock()
    _make_folder(settings.state_dir)
    journal = await SqliteJournal.open(settings.state_dir, clock=clock)
    stack.push_async_callback(journal.close)
    webhook_token, admin_token = _tokens(settings)
    redaction.add(webhook_token, admin_token)
    engine = await Engine.connect(settings.docker_host)
    stack.push_async_callback(engine.close)

    queue = WorkQueue(clock=clock, debounce_seconds=settings.debounce_seconds)
    credentials = registry_credentials(settings)
    containers, image_tags = build_drivers(settings, engine, credentials, journal=journal, events=events)
    ports = Ports(
        registry=await stack.enter_async_context(registry_client(settings, credentials, clock)),
        drivers={Kind.DOCKER: containers, Kind.IMAGE: image_tags},
        journal=journal,
        hints=queue,
        clock=clock,
        events=events,
    )
    stopping = asyncio.Event()
    turns = asyncio.Semaphore(settings.max_parallel_rollouts)
    executor = Executor(ports, turns=turns, stopping=stopping)
    reconciler = Reconciler(ports, executor, settle_seconds=settings.settle_seconds)
    confirmer = await _confirmer(settings, stack, events)
    dispatcher = Dispatcher(
        ports,
        pull_repositories=settings.pull_repositories,
        settle_seconds=settings.settle_seconds,
        finished=confirmer.put if confirmer is not None else None,
    )
    probes = {"engine": _engine_probe(engine), "journal": journal.probe}
    return Daemon(
        settings=settings,
        ports=ports,
        journal=journal,
        queue=queue,
        reconciler=reconciler,
        dispatcher=dispatcher,
        control=DaemonControl(ports, reconciler, unmanaged=containers.unmanaged, probes=probes),
        stream=heard.stream,
        scans=heard.scans,
        triggers=Triggers(
            ports,
            engine=engine,
            queue=queue,
            dispatcher=dispatcher,
            known=reconciler.last,
            manages=containers.manages,
        ),
        confirmer=confirmer,
        stopping=stopping,
        webhook_token=webhook_token,
        admin_token=admin_token,
    )


def build_drivers(
    settings: Settings, engine: Engine, credentials: Credentials, *, journal: Journal, events: FactLog
) -> tuple[DockerDriver, ImageDriver]:
    """Build what acts on one engine."""
    scope = Scope(
        default_enable=settings.default_enable,
        name=settings.scope,
        own_id=_own_container(),
        compat=settings.watchtower_rules,
    )
    images = Images(
        engine, events=events, authorize=_authorize(credentials, events), prune=Prune(settings.prune), scope=scope
    )
    handover = HandoverFile(settings.state_dir)
    helper = Helper(engine, keep=handover.write, forget=handover.remove)
    containers = DockerDriver(engine, images, events=events, scope=scope, helper=helper)
    return containers, ImageDriver(engine, images, journal=journal, clock=SystemClock())


def _own_container() -> str | None:
    try:
        return own_container(_MOUNTINFO.read_text(errors="replace"))
    except OSError:  # no Linux
        return None


def registry_client(settings: Settings, credentials: Credentials, clock: Clock) -> OciRegistry:
    """Build what asks registries."""
    return OciRegistry(
        clock=clock,
        credentials=credentials.find,
        insecure=frozenset(settings.insecure_registries),
        ca_file=settings.registry_ca_file,
        certs_folder=_CERTS_FOLDER,
    )


async def _confirmer(settings: Settings, stack: AsyncExitStack, events: FactLog) -> Confirmer | None:
    """Give what answers Docker Hub's legacy callback, where that is asked for."""
    if not settings.dockerhub_callback:
        return None
    return Confirmer(await stack.enter_async_context(ClientSession()), events=events)


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


def registry_credentials(settings: Settings) -> Credentials:
    """Build what knows the credentials of registries."""
    explicit = {}
    if settings.registry_username is not None and settings.registry_password is not None:
        explicit["docker.io"] = (settings.registry_username, settings.registry_password.get_secret_value())
    return Credentials(config_file=settings.registry_credentials, explicit=explicit)


def _authorize(credentials: Credentials, events: FactLog) -> Authorize:
    async def authorize(host: str) -> dict[str, str] | None:
        try:
            credential = await credentials.find(host)
        except Refused as error:
            # The image may be public: what cannot be read is told, and the engine asks as nobody.
            events.publish("credentials.failed", reason=str(error))
            return None
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
        on_wrong_credential=control.note_wrong_credential,
        clock=daemon.ports.clock,
        new_id=new_id,
        events=daemon.ports.events,
    )
    pages = page_routes(control, title=settings.title, env=settings.env)
    public = under(settings.root_path, [*receiver.routes(), *pages])
    guarded = api_routes(control, daemon.stream, bearer_guard(daemon.admin_token))
    if settings.watchtower_compat:
        guarded += _watchtower_api(daemon)
    if settings.docs:
        guarded += docs_routes(
            settings.title,
            version=__version__,
            root_path=settings.root_path,
            watchtower=settings.watchtower_compat,
        )
    own = under(settings.root_path, guarded)
    if settings.admin_port is None:
        await listen(stack, [*public, *own], host=settings.host, port=settings.port)
    else:
        await listen(stack, public, host=settings.host, port=settings.port)
        await listen(stack, [*own, *under(settings.root_path, pages)], host=settings.host, port=settings.admin_port)
    at_socket = api_routes(control, daemon.stream, open_guard)
    await listen_at_socket(stack, at_socket, folder=settings.state_dir)


def _watchtower_api(daemon: Daemon) -> list[web.RouteDef]:
    """Give Watchtower's routes; its token opens what Watchtower's settings let it open, the admin token both."""
    settings = daemon.settings
    secret = settings.watchtower_http_api_token
    theirs = [secret.get_secret_value()] if secret is not None else []
    return watchtower_routes(
        daemon.control,
        daemon.scans,
        clock=daemon.ports.clock,
        update_guard=token_guard([daemon.admin_token, *(theirs if settings.watchtower_http_api_update else ())]),
        metrics_guard=token_guard([daemon.admin_token, *(theirs if settings.watchtower_http_api_metrics else ())]),
    )


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
            tasks.create_task(daemon.triggers.look_at_all(daemon.settings.resync_seconds), name="resync"),
            tasks.create_task(daemon.triggers.follow_engine(), name="engine events"),
        }
        if daemon.confirmer is not None:
            looking.add(tasks.create_task(daemon.confirmer.run(), name="confirmer"))
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
