"""`sidecar doctor`: looks for what keeps Sidecar from working, without a daemon, and says what to do about each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from sidecar.app import SystemClock
from sidecar.cli.daemon import Daemon
from sidecar.cli.finding import Finding, Status, broken, doubtful, well
from sidecar.cli.host import Place, examine_socket, examine_state
from sidecar.cli.output import say, say_json
from sidecar.cli.running import examine_daemon
from sidecar.core.decision import Resolved
from sidecar.core.image import DOCKER_HUB, ImageRef
from sidecar.core.target import Target
from sidecar.credentials import Credential, Credentials
from sidecar.errors import SidecarError
from sidecar.oci.transport import Timeouts
from sidecar.oci.trust import is_loopback
from sidecar.registry import OciRegistry
from sidecar.settings_model import Settings, load
from sidecar.targets._engine import Engine
from sidecar.targets.discovery import discover, is_pinned
from sidecar.targets.names import is_image_id, own_name
from sidecar.targets.podman import hold_local
from sidecar.targets.translated import is_labelled, is_watchtower, remarks

_MIGRATION = "docs/migrate-from-watchtower.md has every name of Watchtower's, and what takes its place"
_LARGEST_SKEW_SECONDS = 5.0
_ENGINE_SECONDS = 10.0
_REGISTRY_SECONDS = 10.0
_HIDDEN_BY_PODMAN = (
    "Podman shows nobody the sysctls, domain name, MAC address, device permissions and block weights of a container "
    "that was made by its Docker-compatible API: a new one has none of them; docs/podman.md says more"
)
_LOOPBACK = (
    "in a container that is the container itself, not the host: give Sidecar network_mode: host, or the images a name "
    "that both the engine and Sidecar reach it by"
)
_MOST_NAMES = 10


class EngineFacts(Protocol):
    """What the doctor asks of an engine."""

    @property
    def api_version(self) -> tuple[int, int]:
        """The newest API it speaks."""
        ...

    @property
    def is_podman(self) -> bool:
        """Whether it is Podman behind its Docker-compatible socket."""
        ...

    async def info(self) -> dict[str, Any]:
        """Give what it says of itself."""
        ...

    async def list_containers(self) -> list[dict[str, Any]]:
        """List containers."""
        ...

    async def inspect_container(self, ident: str) -> tuple[dict[str, Any], float] | None:
        """Look at a container; and at the engine's clock."""
        ...

    async def inspect_image(self, ident: str) -> dict[str, Any] | None:
        """Look at an image in its store."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


class Asked(Protocol):
    """What the doctor asks of registries."""

    async def resolve(self, ref: ImageRef) -> Resolved:
        """Ask what a reference means."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the doctor examines; tests have their own."""

    connect: Callable[[str], Awaitable[EngineFacts]]
    registry: Callable[[], AbstractAsyncContextManager[Asked]]
    find_credential: Callable[[str], Awaitable[Credential | None]]
    daemon: Daemon
    place: Place


def doctor(environ: Mapping[str, str], cwd: Path, *, as_json: bool) -> int:
    """Examine everything and print what was found: 0, 3 where the engine is out of reach, 1 for any other failure."""
    loaded = load(environ, cwd)
    findings = [doubtful("settings", str(remark), _MIGRATION) for remark in loaded.remarks]
    findings += asyncio.run(_all_of(loaded.settings, real_parts(loaded.settings)))
    if as_json:
        say_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            say(f"{finding.status:<8} {finding.part:<12} {finding.says}")
            if finding.advice:
                say(f"{'':<8} {'':<12} -> {finding.advice}")
    failed = {finding.part for finding in findings if finding.status is Status.FAILED}
    return (3 if "engine" in failed else 1) if failed else 0


async def _all_of(settings: Settings, parts: Parts) -> list[Finding]:
    return [finding async for finding in examine(settings, parts)]


def real_parts(settings: Settings) -> Parts:
    """Make the parts that the daemon would work with."""
    explicit = {}
    if settings.registry_username is not None and settings.registry_password is not None:
        explicit[DOCKER_HUB] = (settings.registry_username, settings.registry_password.get_secret_value())
    credentials = Credentials(config_file=settings.registry_credentials, explicit=explicit)

    def registry() -> OciRegistry:
        return OciRegistry(
            clock=SystemClock(),
            credentials=credentials.find,
            insecure=frozenset(settings.insecure_registries),
            ca_file=settings.registry_ca_file,
            certs_folder=Path("/etc/docker/certs.d"),
            timeouts=Timeouts(total_seconds=_REGISTRY_SECONDS),
        )

    return Parts(
        connect=lambda url: Engine.connect(url, timeout_seconds=_ENGINE_SECONDS),
        registry=registry,
        find_credential=credentials.find,
        daemon=Daemon.in_folder(settings.state_dir),
        place=Place(),
    )


async def examine(settings: Settings, parts: Parts) -> AsyncIterator[Finding]:
    """Look at one part after the other, the nearest first."""
    yield well("settings", "every setting is accepted; `sidecar check` prints them")
    for finding in examine_state(settings.state_dir, parts.place):
        yield finding
    targets: list[Target] = []
    if (closed := examine_socket(settings.docker_host)) is not None:
        yield closed
    else:
        async for finding in _examine_engine(settings, parts, targets):
            yield finding
    async for finding in _examine_registries(parts, targets):
        yield finding
    for finding in await asyncio.to_thread(lambda: list(examine_daemon(parts.daemon))):
        yield finding


async def _examine_engine(settings: Settings, parts: Parts, targets: list[Target]) -> AsyncIterator[Finding]:
    """See whether the engine answers, and what it runs that is ours."""
    try:
        engine = await parts.connect(settings.docker_host)
    except SidecarError as error:
        yield broken("engine", str(error), "see that it runs, and that SIDECAR_DOCKER_HOST or DOCKER_HOST names it")
        return
    try:
        asked = time.time()
        info = await engine.info()
        answered = time.time()
        entries = await engine.list_containers()
        found = await _discovered(engine, entries, settings)
        built_here = await _built_here(engine, found)
    except SidecarError as error:
        yield broken("engine", str(error), "a socket proxy has to allow what Sidecar needs: the README has the list")
        return
    finally:
        await engine.close()
    api = ".".join(map(str, engine.api_version))
    kind = "Podman" if engine.is_podman else "Docker"
    yield well("engine", f"{info.get('OperatingSystem', '?')}, {kind} {info.get('ServerVersion', '?')}, API {api}")
    if engine.is_podman:
        yield well("engine", _HIDDEN_BY_PODMAN)
    yield _examine_clock(str(info.get("SystemTime", "")), asked, answered)
    for finding in _examine_watchtower(entries, settings):
        yield finding
    for finding in _examine_targets(len(entries), found, built_here, targets):
        yield finding


def _examine_watchtower(entries: Sequence[dict[str, Any]], settings: Settings) -> Iterator[Finding]:
    """Find another updater beside us, and what its labels ask for that is not done as they say."""
    for entry in entries:
        if is_watchtower(entry) and entry.get("State") in {"running", "restarting", "paused"}:
            says = f"{own_name(entry)} is a Watchtower that runs: two updaters take each other's containers away"
            yield doubtful("watchtower", says, f"docker rm -f {own_name(entry)}")
    if settings.watchtower_rules is None:
        if names := [own_name(entry) for entry in entries if is_labelled(entry)]:
            says = f"labels of Watchtower's do not count, and {', '.join(names[:_MOST_NAMES])} have some"
            yield doubtful("watchtower", says, "SIDECAR_WATCHTOWER_COMPAT=true honours them")
        return
    for name, remark in remarks(entries, settings.watchtower_rules):
        yield doubtful("watchtower", f"docker:{name}: label {remark}", _MIGRATION)


def _examine_clock(engine_time: str, asked: float, answered: float) -> Finding:
    try:
        there = datetime.fromisoformat(engine_time).timestamp()  # Docker's is in UTC, Podman's in its own time zone
    except ValueError:
        return doubtful(
            "clock", f"the engine's time is {engine_time!r}, which is none", "see whether it is a Docker engine"
        )
    skew = there - min(max(there, asked), answered)
    if abs(skew) > _LARGEST_SKEW_SECONDS:
        return doubtful(
            "clock",
            f"the engine's clock is {skew:+.0f} seconds from ours",
            "let both keep time by NTP: certificates, tokens and the times in the history depend on it",
        )
    return well("clock", "the engine's clock agrees with ours")


async def _discovered(engine: EngineFacts, entries: Sequence[dict[str, Any]], settings: Settings) -> Sequence[Target]:
    """Find the targets; where the list shows an image's id its tag means another image by now, which is looked up."""
    references = {}
    for entry in entries:
        if is_image_id(entry["Image"]) and (inspected := await engine.inspect_container(entry["Id"])) is not None:
            references[entry["Id"]] = inspected[0]["Config"]["Image"]
    found = discover(
        entries,
        references,
        default_enable=settings.default_enable,
        scope=settings.scope,
        compat=settings.watchtower_rules,
    )
    return hold_local(found) if engine.is_podman else found


async def _built_here(engine: EngineFacts, found: Sequence[Target]) -> frozenset[str]:
    """Give the ids of targets whose image no registry gave and none was given."""
    images = {target.id: await engine.inspect_image(target.ref.familiar) for target in found if not target.refusal}
    return frozenset(ident for ident, image in images.items() if image is not None and not image.get("RepoDigests"))


def _examine_targets(
    containers: int, found: Sequence[Target], built_here: frozenset[str], targets: list[Target]
) -> Iterator[Finding]:
    """Say what is managed, and of the rest of what is labelled why it is not updated."""
    pinned = [target for target in found if is_pinned(target)]
    held = [target for target in found if target.refusal and target not in pinned]
    local = [target for target in found if target.id in built_here]
    managed = [target for target in found if target not in (*held, *pinned, *local)]
    targets += managed
    for target in held:
        yield doubtful("targets", f"{target.id} cannot be looked after", str(target.refusal))
    if not found:
        yield doubtful(
            "targets",
            f"none of {containers} containers is managed" if containers else "there is no container yet",
            'what is to be updated needs a label, and to be created:  labels: {sidecar.enable: "true"}',
        )
        return
    others = {"held": held, "pinned to a digest": pinned, "built on this machine, never pushed or pulled": local}
    counts = [_counted(managed, "managed"), *(_counted(each, what) for what, each in others.items() if each)]
    yield well("targets", f"of {containers} containers " + "; ".join(counts))


def _counted(targets: Sequence[Target], what: str) -> str:
    verb = "is" if len(targets) == 1 else "are"
    return f"{len(targets)} {verb} {what}" + (f": {_names(targets)}" if targets else "")


def _names(targets: Sequence[Target], most: int = _MOST_NAMES) -> str:
    names = [target.name for target in targets[:most]]
    return ", ".join(names) + (f" and {len(targets) - most} more" if len(targets) > most else "")


async def _examine_registries(parts: Parts, targets: Sequence[Target]) -> AsyncIterator[Finding]:
    """See for each registry of a managed container whether there are credentials, and whether it answers."""
    by_host: dict[str, ImageRef] = {}
    for target in targets:
        by_host.setdefault(target.ref.registry, target.ref)
    for host in sorted({DOCKER_HUB, *by_host}):
        yield await _examine_credentials(host, parts)
    async with parts.registry() as registry:
        answers = await asyncio.gather(*(_ask(registry, ref) for _, ref in sorted(by_host.items())))
    for finding in answers:
        yield finding


async def _examine_credentials(host: str, parts: Parts) -> Finding:
    try:
        credential = await parts.find_credential(host)
    except SidecarError as error:
        return broken(
            "credentials", f"{host}: {error}", "put that right, or name another file by SIDECAR_REGISTRY_CREDENTIALS"
        )
    if credential is None:
        return well("credentials", f"{host}: none, so it is asked anonymously")
    return well(
        "credentials", f"{host}: " + (f"as {credential.username}" if credential.username else "by an identity token")
    )


async def _ask(registry: Asked, ref: ImageRef) -> Finding:
    try:
        await registry.resolve(ref)
    except SidecarError as error:
        advice = "its targets are held until it answers, and tried again by themselves"
        return broken("registry", str(error), f"{advice}; {_LOOPBACK}" if is_loopback(ref.registry) else advice)
    return well("registry", f"{ref.registry} answers ({ref.familiar})")
