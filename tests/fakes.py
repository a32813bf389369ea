"""Fakes of the world outside: an engine with names, ids, images, tags, volumes and restart policies, and a clock.

The engine answers as the real one does to what Sidecar asks, and lives on when the process is killed. Every call that
changes it is a point at which the process can die, before and after.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sidecar.core.decision import Cause, Resolved
from sidecar.core.image import Digest, ImageRef
from sidecar.errors import Transient
from sidecar.log_events import EVENTS
from sidecar.targets._engine import EngineError, NameConflict

Json = dict[str, Any]


class Killed(BaseException):
    """The process dies here: no handler of ours may see it."""


@dataclass
class FakeClock:
    """Time that only passes when somebody waits."""

    time: float = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += max(seconds, 0.0)
        await asyncio.sleep(0)


@dataclass
class Bomb:
    """Counts the points at which a process can die, and kills it at the chosen ones.

    Attributes:
        has_gone_off: the process is dead: whatever it would clean up on its way out it does not, until it is started.
    """

    kill_at: set[int] = field(default_factory=set)
    points: int = 0
    has_gone_off: bool = False
    names: list[str] = field(default_factory=list)

    def point(self, name: str) -> None:
        if self.has_gone_off:
            raise Killed(name)
        self.points += 1
        self.names.append(name)
        if self.points in self.kill_at:
            self.has_gone_off = True
            raise Killed(name)


@dataclass
class RecordedEvents:
    """Keeps what was told."""

    told: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def publish(self, event: str, /, **facts: object) -> None:
        strange = facts.keys() - EVENTS[event].keys
        assert not strange, f"{event} says {sorted(strange)}, which the table of events does not know"
        self.told.append((event, facts))

    def named(self, event: str) -> list[dict[str, object]]:
        return [facts for name, facts in self.told if name == event]


@dataclass
class FakeHints:
    """A queue that nobody works on: a gate waits by the clock, and what is asked for is kept for a look.

    As with the real one, nobody waits as long as there is a hint that was not taken.
    """

    clock: FakeClock
    asked: list[tuple[str, Cause]] = field(default_factory=list)
    delays: dict[str, float] = field(default_factory=dict)
    hint: Cause | None = None
    on_wait: Callable[[], None] | None = None

    def add(self, name: str, cause: Cause, *, delay_seconds: float = 0.0) -> None:
        self.delays[name] = delay_seconds
        self.asked.append((name, cause))

    def take_hint(self, name: str) -> Cause | None:
        del name
        hint, self.hint = self.hint, None
        return hint

    async def wait_for_hint(self, name: str, seconds: float) -> None:
        del name
        for _ in range(5):  # whoever is told that it need not wait any more has time to say so
            await asyncio.sleep(0)
        await self.clock.sleep(seconds if self.hint is None else 0.0)
        if self.on_wait is not None:
            self.on_wait()


@dataclass
class FakeRegistry:
    """Knows what tags mean; can be down."""

    tags: dict[str, Digest] = field(default_factory=dict)
    aliases: dict[str, frozenset[str]] = field(default_factory=dict)
    is_down: bool = False
    asked: list[str] = field(default_factory=list)

    async def resolve(self, ref: ImageRef) -> Resolved:
        self.asked.append(str(ref))
        if self.is_down:
            msg = f"asking for {ref}: connection refused"
            raise Transient(msg)
        return Resolved.of(self.tags[str(ref)])

    async def identities(self, ref: ImageRef, digest: Digest, *, platform: str) -> frozenset[str]:
        del ref, platform
        return self.aliases.get(digest, frozenset()) | {digest}


@dataclass
class Behaviour:
    """What a container of an image does once it is started.

    Attributes:
        healthy_after: seconds until its health check succeeds; None: it has no health check.
        unhealthy_after: seconds until its check has failed often enough.
        exits_after: seconds until it exits, again and again if its restart policy lets it.
        refuses_start: the runtime cannot start it.
        declares_cache: its image has a second volume, ``/cache``.
    """

    healthy_after: float | None = 3.0
    unhealthy_after: float | None = None
    exits_after: float | None = None
    refuses_start: bool = False
    declares_cache: bool = False


def digest(letter: str) -> Digest:
    """Make a digest that is easy to tell from another."""
    return Digest("sha256:" + (letter.encode().hex() * 64)[:64])


def image_id(letter: str) -> str:
    """Make the id of the image that ``digest`` of the same letter names."""
    return "sha256:" + ("0f" + letter.encode().hex() * 64)[:64]


class FakeEngine:
    """One engine: containers, images, tags and volumes in dictionaries.

    Args:
        registry: digest to the behaviour of its image, which a pull brings into the store.
    """

    def __init__(self, clock: FakeClock, *, bomb: Bomb | None = None) -> None:
        self.clock = clock
        self.bomb = bomb or Bomb()
        self.api_version = (1, 45)
        self.platform = "linux/amd64"
        self.is_podman = False
        self.containers: dict[str, Json] = {}
        self.images: dict[str, Json] = {}
        self.tags: dict[str, str] = {}
        self.volumes: set[str] = set()
        self.behaviours: dict[str, Behaviour] = {}
        self.pullable: dict[str, str] = {}
        self.offered: dict[str, Json] = {}
        self.pulls: list[str] = []
        self.calls: list[str] = []
        self.fails: dict[str, Callable[[], Exception | None]] = {}
        self.watch: Callable[[FakeEngine], None] | None = None
        self.lost_networks: set[str] = set()
        # How a command ends, by its text: its exit code, and how often it was run, and in which image.
        self.exits: dict[str, int | None] = {}
        self.ran: list[tuple[str, str]] = []
        self._commands: list[str] = []
        self._made = 0

    # --- what a test sets up

    def has_image(
        self, letter: str, *, repository: str, behaviour: Behaviour | None = None, pulled: bool = False
    ) -> str:
        """Let the registry offer an image, or the store have it already."""
        ident = image_id(letter)
        self.behaviours[ident] = behaviour or Behaviour()
        check = None if self.behaviours[ident].healthy_after is None else {"Test": ["CMD", "true"]}
        self.pullable[digest(letter)] = ident
        image = {
            "Id": ident,
            "Os": "linux",
            "Architecture": "amd64",
            "RepoDigests": [f"{repository}@{digest(letter)}"],
            "Config": {"Env": [f"VERSION={letter}"], "Cmd": ["serve"], "Healthcheck": check, "Volumes": {"/data": {}}},
        }
        if pulled:
            self.images[ident] = image
        self.offered[ident] = image
        return ident

    def run(
        self,
        name: str,
        image: str,
        *,
        labels: Mapping[str, str],
        restart: str = "always",
        state: str = "running",
        networks: Mapping[str, Json] | None = None,
        **options: Any,
    ) -> str:
        """Have a container run, as a person made it; the options are of its host configuration."""
        config = {"Image": image, "Labels": dict(labels), "Env": []}
        host = {"RestartPolicy": {"Name": restart, "MaximumRetryCount": 0}, "NetworkMode": "default", **options}
        joined = {"NetworkingConfig": {"EndpointsConfig": dict(networks or {"bridge": {}})}}
        ident = self._make({**config, "HostConfig": host, **joined}, name)
        if state != "created":
            self.begin(self.containers[ident])
        self.containers[ident]["paused"] = state == "paused"
        if state == "exited":
            self.containers[ident]["up"] = False
        return ident

    def named(self, name: str) -> Json | None:
        return next((each for each in self.containers.values() if each["name"] == name), None)

    # --- the engine's API, as `Engine` has it

    async def ping(self) -> float:
        self._called("ping")
        return self.clock.time

    async def info(self) -> Json:
        return {"Name": "host", "DefaultRuntime": "runc"}

    async def version(self) -> Json:
        return {"ApiVersion": "1.45"}

    async def list_containers(self, *, filters: Mapping[str, list[str]] | None = None) -> list[Json]:
        self._called("list_containers")
        wanted = filters or {}
        found = []
        for each in self.containers.values():
            if "ancestor" in wanted and each["image"] not in wanted["ancestor"]:
                continue
            if "name" in wanted and not any(part in each["name"] for part in wanted["name"]):
                continue
            if "status" in wanted and self._state(each)["Status"] not in wanted["status"]:
                continue
            reference = each["config"]["Image"]
            shown = reference if self.tags.get(_tag(reference)) == each["image"] else each["image"]
            found.append(
                {
                    "Id": each["id"],
                    "Created": int(each["created_at"]),
                    "Names": ["/" + each["name"]],
                    "Image": shown,
                    "ImageID": each["image"],
                    "Labels": each["config"]["Labels"],
                    "State": self._state(each)["Status"],
                }
            )
        return found

    async def inspect_container(self, ident: str) -> tuple[Json, float] | None:
        self._called("inspect_container")
        each = self.containers.get(ident) or self.named(ident)
        if each is None:
            return None
        self._settle(each)
        return (self._shown(each), self.clock.time) if each["id"] in self.containers else None

    async def inspect_image(self, ident: str) -> Json | None:
        self._called("inspect_image")
        _, _, wanted = ident.partition("@")
        found = self.images.get(self.tags.get(_tag(ident), ident))
        if found is None:
            found = next((image for image in self.images.values() if wanted and ident_of(image, wanted)), None)
        if found is None:
            return None
        tags = [name for name, image in self.tags.items() if image == found["Id"]]
        return {**found, "RepoTags": [*found.get("RepoTags", []), *tags]}

    async def pull(
        self,
        repository: str,
        wanted: str,
        *,
        platform: str | None,
        auth: Json | None,
        progress: Callable[[Json], None],
    ) -> None:
        del platform, auth
        with self._point(f"pull {wanted[:9]}"):
            progress({"current_bytes": 1, "total_bytes": 1, "layers_done": 1, "layers_total": 1})
            self.pulls.append(f"{repository}@{wanted}")
            ident = self.pullable[wanted]
            self.images[ident] = self.offered[ident]

    async def tag(self, image: str, *, repository: str, tag: str) -> None:
        with self._point(f"tag {repository}:{tag}"):
            if image not in self.images:
                raise EngineError(f"no such image: {image}", status=404)
            self.tags[f"{repository}:{tag}"] = image

    async def remove_image(self, ident: str) -> bool:
        with self._point(f"remove_image {ident[:9]}"):
            is_used = any(each["image"] == ident for each in self.containers.values()) or ident in self.tags.values()
            return not is_used and self.images.pop(ident, None) is not None

    async def prune_images(self) -> Json:
        return {"SpaceReclaimed": 0}

    async def prune_system(self) -> Json:
        return {"SpaceReclaimed": 0}

    async def written_bytes(self, ident: str) -> int:
        return sum(len(content) for _, content in self._get(ident)["files"].values())

    async def changes(self, ident: str) -> list[Json]:
        return [{"Path": path, "Kind": 1} for path in self._get(ident)["files"]]

    async def stat_file(self, ident: str, path: str) -> Json | None:
        modified, content = self._get(ident)["files"].get(path, (None, b""))
        return modified and {"name": path, "size": len(content), "mode": 0o444, "mtime": modified}

    async def get_archive(self, ident: str, path: str) -> bytes:
        archive, content = io.BytesIO(), self._get(ident)["files"][path][1]
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo(path.rpartition("/")[2])
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        return archive.getvalue()

    async def put_archive(self, ident: str, archive: bytes) -> None:
        each = self._get(ident)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for entry in tar:
                file = tar.extractfile(entry)
                assert file is not None
                with self._point(f"put /{entry.name} {each['name']}"):
                    each["files"][f"/{entry.name}"] = (_written(entry.mtime), file.read())

    async def create_container(self, body: Json, *, name: str, platform: str | None) -> str:
        del platform
        with self._point(f"create {name}"):
            if self.named(name) is not None:
                raise NameConflict(f"the name {name} is taken", status=409)
            return self._make(body, name)

    async def has_network(self, name: str) -> bool:
        return name not in self.lost_networks

    async def connect_network(self, network: str, container: str, endpoint: Json) -> None:
        each = self._get(container)
        with self._point(f"connect {each['name']} {network}"):
            if network in each["networks"]:
                raise EngineError(f"endpoint with name {each['name']} already exists in {network}", status=403)
            each["networks"][network] = dict(endpoint)

    async def disconnect_network(self, network: str, container: str) -> None:
        each = self._get(container)
        with self._point(f"disconnect {each['name']} {network}"):
            each["networks"].pop(network, None)

    async def start(self, ident: str) -> None:
        each = self._get(ident)
        with self._point(f"start {each['name']}"):
            if self.behaviours[each["image"]].refuses_start:
                each["error"], each["code"] = "exec: no such file", 127
                self._auto_remove(each)
                raise EngineError("exec: no such file", status=400)
            if lost := self.lost_networks & each["networks"].keys():
                raise EngineError(f"network {min(lost)} not found", status=404)
            if (of := _namespace_of(each)) is not None and not self.containers.get(of, {"up": False})["up"]:
                raise EngineError(f"cannot join network of a non running container: {of}", status=409)
            self._settle(each)
            if not each["up"]:
                self.begin(each)

    async def restart(self, ident: str, *, grace_seconds: int) -> None:
        del grace_seconds
        each = self._get(ident)
        with self._point(f"restart {each['name']}"):
            self.end(each, 143)
            self.begin(each)

    async def stop(self, ident: str, *, grace_seconds: int) -> None:
        del grace_seconds
        each = self._get(ident)
        with self._point(f"stop {each['name']}"):
            if each["paused"]:
                raise EngineError("container is paused", status=409)
            self.end(each, 143)

    async def pause(self, ident: str) -> None:
        each = self._get(ident)
        with self._point(f"pause {each['name']}"):
            each["paused"] = True

    async def unpause(self, ident: str) -> None:
        each = self._get(ident)
        with self._point(f"unpause {each['name']}"):
            each["paused"] = False

    async def rename(self, ident: str, name: str) -> None:
        each = self._get(ident)
        with self._point(f"rename {each['name']} {name}"):
            if self.named(name) not in (None, each):
                raise NameConflict(f"the name {name} is taken", status=409)
            each["name"] = name

    async def set_restart_policy(self, ident: str, policy: Json) -> None:
        each = self._get(ident)
        with self._point(f"restart policy {each['name']} {policy['Name']}"):
            if each["host"].get("AutoRemove"):
                raise EngineError("restart policy cannot be updated because AutoRemove is enabled", status=409)
            each["host"]["RestartPolicy"] = dict(policy)

    async def remove_container(self, ident: str, *, volumes: bool, force: bool = False) -> None:
        each = self.containers.get(ident)
        with self._point(f"remove {each['name'] if each else ident}"):
            if each is None:
                return
            self._settle(each)
            if each["up"] and not force:
                raise EngineError("the container is running", status=409)
            if volumes:
                self.volumes -= set(each["own_volumes"])
            del self.containers[ident]

    async def remove_volume(self, name: str) -> bool:
        with self._point(f"remove_volume {name}"):
            is_used = any(name in (each["volume"], each["cache"]) for each in self.containers.values())
            self.volumes -= set() if is_used else {name}
            return not is_used

    async def create_exec(self, ident: str, command: Sequence[str], *, env: Mapping[str, str]) -> str:
        each = self._get(ident)
        assert each["up"]
        assert not each["paused"]
        assert env["SIDECAR_TARGET"] == f"docker:{each['name']}"
        self.ran.append((command[-1], each["image"]))
        self._commands.append(command[-1])
        return str(len(self._commands) - 1)

    async def start_exec(self, ident: str, *, timeout_seconds: float | None) -> str:
        command = self._commands[int(ident)]
        with self._point(f"run {command}"):
            if self.exits.get(command, 0) is None:
                assert timeout_seconds is not None
                raise TimeoutError
            return f"{command} says\nits last line\n"

    async def inspect_exec(self, ident: str) -> Json:
        return {"Running": False, "ExitCode": self.exits.get(self._commands[int(ident)], 0)}

    async def logs(self, ident: str, *, tail: int) -> str:
        del tail
        return f"the last words of {self._get(ident)['name']}\n"

    # --- what happens on its own

    def reboot(self) -> None:
        """Start the host again: who runs again is up to the restart policies."""
        for each in list(self.containers.values()):
            was_up = each["up"]
            each["up"] = False
            self._auto_remove(each)
            policy = each["host"]["RestartPolicy"].get("Name")
            is_to_run = policy == "always" or (policy == "unless-stopped" and was_up)
            of = self.containers.get(_namespace_of(each) or each["id"], {"started_at": None})
            if each["started_at"] and is_to_run and (of is each or of["up"]):
                self.begin(each)

    def begin(self, each: Json) -> None:
        each |= {"up": True, "started_at": self.clock.time, "restarts": 0, "code": 0, "error": "", "paused": False}

    def end(self, each: Json, code: int) -> None:
        """Let a container end now."""
        each |= {"up": False, "code": code, "finished_at": self.clock.time}
        self._auto_remove(each)

    def _auto_remove(self, each: Json) -> None:
        if each["host"].get("AutoRemove"):
            del self.containers[each["id"]]
            used = {other[key] for other in self.containers.values() for key in ("volume", "cache")}
            self.volumes -= set(each["own_volumes"]) - used

    def _settle(self, each: Json) -> None:
        """Let happen what would have happened to a container by now."""
        behaviour = self.behaviours[each["image"]]
        if not each["up"] or behaviour.exits_after is None:
            return
        crashes = int((self.clock.time - each["started_at"]) / behaviour.exits_after)
        if crashes and each["host"]["RestartPolicy"].get("Name") in ("always", "unless-stopped", "on-failure"):
            each["restarts"] = crashes
        elif crashes:
            self.end(each, 1)
            each["finished_at"] = each["started_at"] + behaviour.exits_after

    def _make(self, body: Json, name: str) -> str:
        self._made += 1
        ident = f"{self._made:064x}"
        reference = body["Image"]
        image = self.tags.get(_tag(reference), reference if reference in self.images else None)
        if image is None:
            raise EngineError(f"no such image: {reference}", status=404)
        host = deepcopy(body["HostConfig"])
        if host.get("AutoRemove") and host["RestartPolicy"].get("Name") not in ("", "no"):
            raise EngineError("can't create 'AutoRemove' container with restart policy", status=400)
        if (of := _namespace_of({"host": host})) is not None and of not in self.containers:
            raise EngineError(f"No such container: {of}", status=404)
        taken = {mount["Target"]: mount["Source"] for mount in host.get("Mounts") or []}
        own = [] if "/data" in taken else [f"volume-{self._made}"]
        own += [f"cache-{self._made}"] if self.behaviours[image].declares_cache and "/cache" not in taken else []
        self.volumes |= set(own)
        self.containers[ident] = {
            "id": ident,
            "name": name,
            "image": image,
            "config": {key: value for key, value in body.items() if key not in ("HostConfig", "NetworkingConfig")},
            "host": host,
            "networks": deepcopy(body["NetworkingConfig"]["EndpointsConfig"]),
            "volume": taken.get("/data", f"volume-{self._made}"),
            "cache": taken.get("/cache", own[-1] if own[-1:] == [f"cache-{self._made}"] else None),
            "own_volumes": own,
            "files": {},
            "up": False,
            "paused": False,
            "created_at": self.clock.time,
            "started_at": None,
            "finished_at": None,
            "restarts": 0,
            "code": 0,
            "error": "",
        }
        return ident

    def _shown(self, each: Json) -> Json:
        defaults = self.images.get(each["image"], {"Config": {}})["Config"]
        config = {key: value for key, value in each["config"].items() if value is not None}
        return {
            "Id": each["id"],
            "Name": "/" + each["name"],
            "Image": each["image"],
            "Created": _written(each["created_at"]),
            "RestartCount": each["restarts"],
            "Config": deepcopy({**defaults, **config, "Hostname": each["id"][:12]}),
            "HostConfig": deepcopy(each["host"]),
            "Mounts": [
                {"Type": "volume", "Name": each[key], "Destination": place, "RW": True}
                for key, place in (("volume", "/data"), ("cache", "/cache"))
                if each[key] is not None
            ],
            "NetworkSettings": {"Networks": deepcopy(each["networks"])},
            "State": self._state(each),
        }

    def _state(self, each: Json) -> Json:
        behaviour, started = self.behaviours[each["image"]], each["started_at"]
        status = "created" if started is None else "running" if each["up"] else "exited"
        state: Json = {"Status": status, "ExitCode": each["code"], "Error": each["error"]}
        state["StartedAt"], state["FinishedAt"] = _written(started), _written(each["finished_at"])
        if each["up"] and each["paused"]:
            state["Status"] = "paused"
        if each["up"] and behaviour.healthy_after is not None:
            age = self.clock.time - started
            state["Health"] = _health(behaviour, started, age)
            if each["finished_at"] is not None or each["restarts"]:
                # The engine keeps the results of earlier runs as well.
                state["Health"]["Log"].insert(0, _result(0, started - 1))
        return state

    def _get(self, ident: str) -> Json:
        self._called("get")
        if ident not in self.containers:
            raise EngineError(f"no such container: {ident}", status=404)
        return self.containers[ident]

    def _called(self, name: str) -> None:
        failure = self.fails.get(name.partition(" ")[0])
        if failure is not None and (error := failure()) is not None:
            raise error

    def _point(self, name: str) -> _Point:
        self._called(name)
        return _Point(self, name)


class _Point:
    """One call that changes the engine: the process may die before it, and after it."""

    def __init__(self, engine: FakeEngine, name: str) -> None:
        self._engine, self._name = engine, name

    def __enter__(self) -> None:
        self._engine.bomb.point(f"before {self._name}")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        self._engine.calls.append(self._name)
        if self._engine.watch is not None:
            self._engine.watch(self._engine)
        self._engine.bomb.point(f"after {self._name}")


def failing_first(times: int, error: Exception) -> Callable[[], Exception | None]:
    """Make what a fake asks before a call: it fails so often, and is well from then on."""
    left = iter(range(times))
    return lambda: error if next(left, None) is not None else None


def _namespace_of(each: Json) -> str | None:
    kind, _, of = str(each["host"].get("NetworkMode", "")).partition(":")
    return of if kind == "container" else None


def ident_of(image: Json, wanted: str) -> bool:
    """Say whether an image is known by a digest."""
    return any(text.endswith("@" + wanted) for text in image["RepoDigests"])


def _tag(reference: str) -> str:
    name = reference.rpartition("/")[2]
    return reference if ":" in name or reference.startswith("sha256:") else f"{reference}:latest"


def _written(seconds: float | None) -> str:
    if seconds is None:
        return "0001-01-01T00:00:00Z"
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat().replace("+00:00", "Z")


def _health(behaviour: Behaviour, started: float, age: float) -> Json:
    if behaviour.unhealthy_after is not None and age >= behaviour.unhealthy_after:
        return {"Status": "unhealthy", "Log": [_result(1, started + age)]}
    if behaviour.healthy_after is None or age < behaviour.healthy_after or behaviour.unhealthy_after is not None:
        return {"Status": "starting", "Log": []}
    return {"Status": "healthy", "Log": [_result(0, started + behaviour.healthy_after)]}


def _result(code: int, at: float) -> Json:
    return {"ExitCode": code, "Start": _written(at), "End": _written(at), "Output": "no answer" if code else ""}


class KillingJournal:
    """A journal whose every write is a point at which the process can die, before and after."""

    def __init__(self, journal: Any, bomb: Bomb) -> None:
        self._journal, self._bomb = journal, bomb

    def __getattr__(self, name: str) -> Any:
        call: Callable[..., Awaitable[Any]] = getattr(self._journal, name)
        if name not in ("record", "add_image_target", "finish_deliveries"):
            return call

        async def killing(*args: Any, **kwargs: Any) -> Any:
            self._bomb.point(f"before {name}")
            answer = await call(*args, **kwargs)
            self._bomb.point(f"after {name}")
            return answer

        return killing
