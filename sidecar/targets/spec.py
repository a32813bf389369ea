"""From the inspect of a container to the create request of the one that replaces it on a new image.

What a user configured goes over verbatim, as the engine's own JSON: a field that is not named here is kept, for any
re-encoding loses some. What only the old image put there is left out, so that the new image's defaults apply. Must not
ask an engine anything, and must not drop in silence what it cannot keep: `losses` names that before anything is done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from posixpath import normpath

from sidecar.targets.endpoints import MANY_AT_CREATE, PODMAN_KEY, Api, Json, endpoints, short_id

DEFAULT_STOP_GRACE_SECONDS = 10  # the engine's own, where neither user nor image says otherwise

COMPOSE_PREFIX = "com.docker.compose."
COMPOSE_IMAGE = COMPOSE_PREFIX + "image"
COMPOSE_REPLACE = COMPOSE_PREFIX + "replace"  # which container Compose replaced by this one; untrue of the next one


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """A network to connect before the start, as ``POST /networks/<network>/connect`` takes it."""

    network: str
    endpoint: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """What makes the new container, as it is kept in the journal.

    Attributes:
        body: raw JSON for ``POST /containers/create``.
        platform: its ``platform`` parameter; None where the engine's own is meant.
        connects: what API versions before 1.44 take only after the creation, in order.
        notes: what will be different though nothing is lost; for the log.
    """

    body: Json = field(repr=False)  # environments and commands hold secrets
    platform: str | None = None
    connects: tuple[Connect, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Write it as text for the journal."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @property
    def endpoints(self) -> dict[str, Json]:
        """What is asked for on each network, whenever it is connected."""
        at_create: dict[str, Json] = self.body["NetworkingConfig"]["EndpointsConfig"]
        return at_create | {connect.network: connect.endpoint for connect in self.connects}

    def unnamed(self) -> CreateRequest:
        """Give the request without aliases: the engine's DNS leads to a container by those as soon as it starts."""
        bare = {name: _without_aliases(each) for name, each in self.body["NetworkingConfig"]["EndpointsConfig"].items()}
        connects = (Connect(network=each.network, endpoint=_without_aliases(each.endpoint)) for each in self.connects)
        body = self.body | {"NetworkingConfig": {"EndpointsConfig": bare}}
        return replace(self, body=body, connects=tuple(connects))

    def rebound(self, replaced: Mapping[str, str]) -> CreateRequest:
        """Give the request with other containers in the places of some that it refers to.

        Args:
            replaced: references as the engine shows them, to the ids of what stands for them now.
        """
        host = dict(self.body["HostConfig"])
        for key in ("NetworkMode", "IpcMode", "PidMode"):
            kind, separator, parent = (host.get(key) or "").partition(":")
            if kind == "container":
                host[key] = kind + separator + replaced.get(parent, parent)
        if host.get("VolumesFrom"):
            split = [entry.partition(":") for entry in host["VolumesFrom"]]
            host["VolumesFrom"] = [replaced.get(parent, parent) + colon + mode for parent, colon, mode in split]
        return replace(self, body=self.body | {"HostConfig": host})

    @classmethod
    def from_json(cls, text: str) -> CreateRequest:
        """Read what ``to_json`` wrote."""
        kept = json.loads(text)
        return cls(
            body=kept["body"],
            platform=kept["platform"],
            connects=tuple(Connect(**connect) for connect in kept["connects"]),
            notes=tuple(kept["notes"]),
        )


def _without_aliases(endpoint: Json) -> Json:
    return {key: value for key, value in endpoint.items() if key != "Aliases"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDefaults:
    """What an engine says about itself: an inspect shows it in the place of what nobody asked for. Empty is unknown.

    Attributes:
        platform: ``linux/amd64``, of ``GET /version``.
        hostname: ``Name`` of ``GET /info``; what a container on the host's network is called.
        runtime: ``DefaultRuntime`` of ``GET /info``.
    """

    platform: str = ""
    hostname: str = ""
    runtime: str = ""


UNKNOWN = EngineDefaults()


def create_request(
    container: Json,
    *,
    old_image: Json,
    new_image: Json,
    image: str,
    api: Api,
    engine: EngineDefaults = UNKNOWN,
) -> CreateRequest:
    """Make the request for a container like this one on another image.

    Args:
        container: its inspect; from API 1.52 on one taken at 1.51, the last version that shows a MAC address asked for.
        old_image: the inspect of the image that it runs, found by id: a tag may mean another one by now.
        new_image: the inspect of the image it shall run; with its manifests where the engine has the containerd store.
        image: the reference as configured.
        api: the version that the request will be posted with.
        engine: what the engine does where nothing is asked for.
    """
    defaults = old_image.get("Config") or {}
    config = _own_config(container, defaults, engine)
    config["Image"] = image
    config["Labels"] = _compose_labels(config["Labels"], container, new_image)
    if container["Config"].get("MacAddress") and api < MANY_AT_CREATE:
        config["MacAddress"] = container["Config"]["MacAddress"]
    asked = list(endpoints(container, api=api).items())
    at_create = asked if api >= MANY_AT_CREATE else asked[:1]
    body = config | {
        "HostConfig": _host_config(container, engine=engine),
        "NetworkingConfig": {"EndpointsConfig": dict(at_create)},
    }
    return CreateRequest(
        body=body,
        platform=foreign_platform(container, old_image, engine=engine.platform),
        connects=tuple(Connect(network=name, endpoint=endpoint) for name, endpoint in asked[len(at_create) :]),
        notes=(*_random_ports(container), *_kept_volumes(container)),
    )


def stop_grace_seconds(container: Json) -> int:
    """Give how long the engine waits between the stop signal and the kill; negative is for ever."""
    seconds = container["Config"].get("StopTimeout")
    return DEFAULT_STOP_GRACE_SECONDS if seconds is None else int(seconds)


def foreign_platform(container: Json, image: Json, *, engine: str) -> str | None:
    """Give the platform to pull and create for, where the container runs another one than the engine's own."""
    made_for = (container.get("ImageManifestDescriptor") or {}).get("platform") or {
        "os": image.get("Os"),
        "architecture": image.get("Architecture"),
        "variant": image.get("Variant"),
    }
    parts = [made_for.get(key) or "" for key in ("os", "architecture", "variant")]
    if not engine or not all(parts[:2]) or engine == "/".join(parts[:2]):
        return None
    return "/".join(filter(None, parts))


# --- Config: what the old image put there is left out ---------------------------------------------------------------


def _own_config(container: Json, defaults: Json, engine: EngineDefaults) -> Json:
    """Give the part of Config that the user asked for, the image's name and a MAC address excepted.

    It undoes what the engine's ``merge`` of image and user configuration did when the container was created.
    """
    config: Json = deepcopy(container["Config"])
    for key in ("User", "WorkingDir", "StopSignal", "ArgsEscaped"):
        if config.get(key) == defaults.get(key):
            config.pop(key, None)
    published = container["HostConfig"].get("PortBindings") or {}
    config |= {
        "Env": [entry for entry in config.get("Env") or [] if entry not in (defaults.get("Env") or [])],
        "Volumes": _without(config.get("Volumes"), defaults.get("Volumes")),
        # A port is published only if it is exposed, and the new image may not expose it any more.
        "ExposedPorts": _without(config.get("ExposedPorts"), defaults.get("ExposedPorts"), keep=published.__contains__),
        # An image that Compose built carries some of the labels by which Compose finds the container.
        "Labels": _without(
            config.get("Labels"), defaults.get("Labels"), keep=lambda key: key.startswith(COMPOSE_PREFIX)
        ),
        "Healthcheck": _health_check(container, defaults),
        **_command(config, defaults),
    }
    for key in _generated(container, engine):
        config.pop(key, None)
    return config


def _without(own: Json | None, defaults: Json | None, *, keep: Callable[[str], bool] = lambda _: False) -> Json:
    return {k: v for k, v in (own or {}).items() if keep(k) or (defaults or {}).get(k, ...) != v}


def _health_check(container: Json, defaults: Json) -> Json | None:
    whole: Json | None = deepcopy(container["Config"].get("Healthcheck"))
    own = _without(whole, defaults.get("Healthcheck"))
    if own and PODMAN_KEY in container:  # which does not merge the image's into one that was asked for
        return whole
    return own or None


def _command(config: Json, defaults: Json) -> Json:
    """Give Entrypoint and Cmd as the user set them: an image's Cmd is inherited only together with its Entrypoint."""
    entrypoint, command = config.get("Entrypoint"), config.get("Cmd")
    is_image_command = (command or []) == (defaults.get("Cmd") or [])
    if (entrypoint or []) == (defaults.get("Entrypoint") or []):
        if is_image_command:
            return {"Entrypoint": None, "Cmd": None}
        # Set to the same and without a command: left out, the image's command would come with the image's entrypoint.
        return {"Entrypoint": None, "Cmd": command} if command else {"Entrypoint": entrypoint, "Cmd": None}
    if entrypoint is None:
        # Cleared by `--entrypoint ""`. The engine keeps that as null, and would inherit again; this is what clears it.
        return {"Entrypoint": [""], "Cmd": command}
    # An empty list clears it too, and lets the image's command through.
    return {"Entrypoint": entrypoint, "Cmd": None if not entrypoint and is_image_command else command}


def _generated(container: Json, engine: EngineDefaults) -> Iterator[str]:
    """Name the fields of Config that the engine filled in, and some of which it would refuse to be given."""
    yield "MacAddress"
    host, hostname = container["HostConfig"], container["Config"].get("Hostname")
    mode = host.get("NetworkMode") or ""
    if mode.startswith("container:"):
        yield from ("Hostname", "Domainname", "ExposedPorts")  # the parent's
    # On the host's network it is the host's, unless a user set another one.
    of_host = mode == "host" and hostname == (engine.hostname or hostname)
    if hostname == short_id(container) or of_host or host.get("UTSMode") == "host":
        yield "Hostname"


def _compose_labels(labels: Json, container: Json, new_image: Json) -> Json:
    """Bring the labels up to date by which Compose decides whether a container is."""
    kept = {key: value for key, value in labels.items() if key != COMPOSE_REPLACE}
    ran = kept.get(COMPOSE_IMAGE)
    descriptor = container.get("ImageManifestDescriptor") or {}
    if ran == container["Image"]:
        kept[COMPOSE_IMAGE] = new_image["Id"]
    elif ran and ran == descriptor.get("digest"):
        # Compose 5.5 and later write the digest of the platform's manifest, where the engine keeps whole indexes.
        kept[COMPOSE_IMAGE] = _manifest_digest(new_image, descriptor.get("platform") or {}) or ran
    return kept


def _manifest_digest(image: Json, platform: Json) -> str | None:
    """Find the manifest of a platform in an image inspected with its manifests, as Compose would."""
    available = [m for m in image.get("Manifests") or [] if m.get("Kind") == "image" and m.get("Available")]
    described = [(m, (m.get("ImageData") or {}).get("Platform") or {}) for m in available]
    alike = [m for m, of in described if all(of.get(key) == platform.get(key) for key in ("os", "architecture"))]
    same = [m for m, of in described if m in alike and (of.get("variant") or "") == (platform.get("variant") or "")]
    return next((found[0]["ID"] for found in (same, alike, available) if len(found) == 1), None)


# --- HostConfig: verbatim, but for what would be lost or refused that way -------------------------------------------


def _host_config(container: Json, *, engine: EngineDefaults) -> Json:
    """Give HostConfig with the volumes that the old container has, and without what the engine filled in."""
    host: Json = deepcopy(container["HostConfig"]) | {"ContainerIDFile": ""}
    if engine.runtime and host.get("Runtime") == engine.runtime:
        host["Runtime"] = ""
    if host.get("MemorySwappiness") == -1:
        host["MemorySwappiness"] = None  # older engines write "not set" so
    if _is_masked_by_engine(frozenset(host.get("MaskedPaths") or ())):
        host["MaskedPaths"] = None
    if frozenset(host.get("ReadonlyPaths") or ()) == _READ_ONLY:
        host["ReadonlyPaths"] = None
    return host | attached_volumes(container)


# What engines hide from a container by themselves, and what later ones do beside. No option of a client asks for these
# lists, and kept they would leave open to the new container what the engine has learned to hide since.
_MASKED = frozenset(
    {
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/firmware",
    }
)
_MASKED_LATER = ("/proc/interrupts", "/sys/devices/system/cpu/", "/sys/devices/virtual/powercap")
_READ_ONLY = frozenset({"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"})


def _is_masked_by_engine(paths: frozenset[str]) -> bool:
    return paths >= _MASKED and all(path.startswith(_MASKED_LATER) for path in paths - _MASKED)


def attached_volumes(container: Json) -> Json:
    """Give Binds and Mounts with every anonymous volume by its name: nothing else says that its data belong here."""
    host = container["HostConfig"]
    volumes = {normpath(m["Destination"]): m for m in container.get("Mounts") or [] if _is_named_volume(m)}
    binds = [_attached_bind(bind, volumes) for bind in host.get("Binds") or []]
    mounts = [_attached_mount(mount, volumes) for mount in host.get("Mounts") or []]
    taken = {normpath(bind.split(":")[1]) for bind in binds if ":" in bind}
    taken |= {normpath(mount["Target"]) for mount in mounts} | {normpath(path) for path in host.get("Tmpfs") or {}}
    declared = {normpath(path) for path in container["Config"].get("Volumes") or {}}
    for destination, volume in sorted(volumes.items()):
        # What comes from another container's volumes comes again.
        if destination not in taken and (destination in declared or not host.get("VolumesFrom")):
            mounts.append(_mount(volume))
    return {"Binds": binds or host.get("Binds"), **({"Mounts": mounts} if mounts else {})}


def _is_named_volume(mount: Json) -> bool:
    return mount.get("Type") == "volume" and bool(mount.get("Name"))


def _attached_bind(bind: str, volumes: Mapping[str, Json]) -> str:
    volume = None if ":" in bind else volumes.get(normpath(bind))
    return f"{volume['Name']}:{bind}" if volume else bind


def _attached_mount(mount: Json, volumes: Mapping[str, Json]) -> Json:
    if mount.get("Type") != "volume" or mount.get("Source") or normpath(mount["Target"]) not in volumes:
        return mount
    return mount | {"Source": volumes[normpath(mount["Target"])]["Name"]}


def _mount(volume: Json) -> Json:
    mount = {"Type": "volume", "Source": volume["Name"], "Target": volume["Destination"]}
    if not volume.get("RW", True):
        mount["ReadOnly"] = True
    if (volume.get("Driver") or "local") != "local":
        mount["VolumeOptions"] = {"DriverConfig": {"Name": volume["Driver"]}}
    return mount


def _kept_volumes(container: Json) -> Iterator[str]:
    if container["HostConfig"].get("AutoRemove"):
        # The engine removes those only that it was not told the names of.
        for mount in container.get("Mounts") or []:
            if _is_named_volume(mount) and not _is_asked_for(mount, container):
                kept = f"{mount['Destination']} keeps its volume {mount['Name'][:12]} for good"
                yield f"{kept}, also when --rm removes the container"


def _is_asked_for(mount: Json, container: Json) -> bool:
    host = container["HostConfig"]
    binds = {bind.partition(":")[0] for bind in host.get("Binds") or []}
    return mount["Name"] in binds | {each.get("Source") for each in host.get("Mounts") or []}


def _random_ports(container: Json) -> Iterator[str]:
    asked = container["HostConfig"].get("PortBindings") or {}
    for port, live in ((container.get("NetworkSettings") or {}).get("Ports") or {}).items():
        fixed = {binding.get("HostPort") for binding in asked.get(port) or []}
        for chosen in sorted({binding["HostPort"] for binding in live or []} - fixed):
            yield f"{port} was published on port {chosen}, which the engine chose; it chooses anew"
