"""From a create request to the commands of Docker's client that make the same container, for people and shells.

They are what is left when Sidecar is not there. Whatever no option of the client says is named in a comment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from shlex import quote

from sidecar.targets.client_options import CONFIG, host_options, security_of_paths
from sidecar.targets.client_words import Said, Unsaid, csv_list, is_default, pairs
from sidecar.targets.endpoints import Api, Json
from sidecar.targets.spec import CreateRequest

Words = tuple[str, ...]
_ATTACHED = ("AttachStdin", "AttachStdout", "AttachStderr")
# What more than one field says, or which is said beside the options.
_CONFIG_ELSEWHERE = frozenset(
    {*_ATTACHED, "StdinOnce", "Image", "Cmd", "Entrypoint", "ExposedPorts", "HostConfig", "NetworkingConfig"}
)
_HOST_ELSEWHERE = frozenset({"NetworkMode", "MaskedPaths", "ReadonlyPaths"})
_ENDPOINT = ("Aliases", "IPAMConfig", "MacAddress", "Links", "DriverOpts", "GwPriority")
_IPAM = ("IPv4Address", "IPv6Address", "LinkLocalIPs")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """What makes a container.

    Attributes:
        commands: in their order, each as a list of words.
        unsaid: what no option of the client says.
    """

    commands: Sequence[Words] = field(repr=False)  # environments and commands hold secrets
    unsaid: Sequence[Unsaid] = ()

    @property
    def comments(self) -> list[str]:
        """Name what the commands do not say, as comments for a shell."""
        whole = (f"# not expressible: {each.field}" + (f" ({each.why})" if each.why else "") for each in self.unsaid)
        return ["".join(char if char.isprintable() else "?" for char in comment) for comment in whole]

    @property
    def lines(self) -> list[str]:
        """Write the commands for a shell."""
        return [" ".join(map(quoted, command)) for command in self.commands]


def quoted(word: str) -> str:
    """Quote a word for a shell, without a character in it that a terminal would take for a command."""
    if all(char.isprintable() or char == "\n" for char in word):
        return quote(word)
    return "".join(map(_quoted_character, word))


def _quoted_character(char: str) -> str:
    if char.isprintable() or char == "\n":
        return quote(char)
    octal = "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogatepass"))
    return f"\"$(printf '{octal}')\""


def command_line(request: CreateRequest, name: str, *, api: Api, is_started: bool = True) -> CommandLine:
    """Give the commands that make a container of this name.

    Args:
        api: the engine's version; its client is taken to be as old.
        is_started: it is to run, and not only to be there.
    """
    body = request.body
    later = [(each.network, each.endpoint) for each in request.connects]
    at_create = list(body["NetworkingConfig"]["EndpointsConfig"].items())
    # A link of a network beyond the first has an option only there; beside the default one `create` takes no other.
    is_default_first = bool(at_create) and at_create[0][0] == "bridge"
    later += [each for each in at_create[1:] if is_default_first or (each[1] or {}).get("Links")]
    joins = [[*_join(endpoint or {}), network, name] for network, endpoint in later]
    is_run = is_started and not joins and not any(map(body.get, _ATTACHED))
    made = chain(
        ("run", "--detach") if is_run else ("create",),
        ("--name", name),
        ("--platform", request.platform) if request.platform else (),
        _networks(body["HostConfig"], [each for each in at_create if each not in later]),
        _config(body, is_run=is_run),
        _host(body["HostConfig"], api=api),
        _process(body),
    )
    whole = [list(made), *(["network", "connect", *join] for join in joins)]
    if is_started and not is_run:
        whole.append(["start", name])
    return CommandLine(
        commands=[("docker", *(word for word in each if isinstance(word, str))) for each in whole],
        unsaid=tuple(dict.fromkeys(word for each in whole for word in each if isinstance(word, Unsaid))),
    )


# --- Config and HostConfig -------------------------------------------------------------------------------------------


def _config(body: Json, *, is_run: bool) -> Said:
    for key, value in body.items():
        if key in CONFIG:
            yield from CONFIG[key](value)
        elif key not in _CONFIG_ELSEWHERE and not is_default(value):
            yield Unsaid(f"Config.{key}")
    published = body["HostConfig"].get("PortBindings") or {}
    for port in body.get("ExposedPorts") or {}:
        if port not in published:  # which exposes it
            yield from ("--expose", port)
    yield from _attached(body, is_run=is_run)


def _attached(body: Json, *, is_run: bool) -> Said:
    """Say what the client is attached to: to nothing by `run --detach`, to the output by `create` without options."""
    asked = {key for key in _ATTACHED if body.get(key)}
    by_itself = {"AttachStdin"} if body.get("OpenStdin") and not is_run else set[str]()
    given = set[str]() if is_run else {"AttachStdout", "AttachStderr"} | by_itself
    if asked and asked != given:
        given = asked | by_itself
        yield from (word for key in _ATTACHED if key in asked for word in ("--attach", key[len("Attach") :].lower()))
    yield from (Unsaid(f"Config.{key}", "docker create attaches it") for key in _ATTACHED if key in given - asked)
    if bool(body.get("StdinOnce")) != bool(body.get("OpenStdin") and "AttachStdin" in given):
        yield Unsaid("Config.StdinOnce", str(body.get("StdinOnce")))


def _host(host: Json, *, api: Api) -> Said:
    options = host_options(api)
    for key, value in host.items():
        if key in options:
            yield from options[key](value)
        elif key not in _HOST_ELSEWHERE and not is_default(value):
            yield Unsaid(f"HostConfig.{key}")
    yield from security_of_paths(host)


def _process(body: Json) -> Said:
    """Give the image, and beside it what is run of it."""
    entrypoint, command = body.get("Entrypoint"), body.get("Cmd") or []
    if entrypoint == [] and not command:
        yield Unsaid("Config.Entrypoint", "none, with the command of the image")
    elif entrypoint is not None:
        first, *rest = entrypoint or [""]
        yield from ("--entrypoint", first)
        if rest:
            yield Unsaid("Config.Entrypoint", "its further words are given with the command; it runs the same")
            yield Unsaid("Config.Cmd", "it begins with the further words of the entry point")
        command = [*rest, *command]
    yield from (body["Image"], *command)


# --- networks --------------------------------------------------------------------------------------------------------


def _networks(host: Json, endpoints: Sequence[tuple[str, Json | None]]) -> Said:
    mode = host.get("NetworkMode") or "default"
    if not endpoints:
        yield from () if mode == "default" else ("--network", mode)
        return
    (first, endpoint), *others = endpoints
    asked = endpoint or {}
    network = mode if (is_meant := _is_meant(mode, first)) else first
    if not is_meant:
        yield Unsaid("HostConfig.NetworkMode", mode)
    # What only the long form says, which takes the rest beside it.
    long = [*_pairs_of("driver-opt", asked.get("DriverOpts")), *_priority(asked)]
    if long:
        yield from ("--network", csv_list(iter((f"name={network}", *long))))
    elif mode == "bridge" and host.get("Links"):  # the client takes links only where that network is not named
        yield Unsaid("HostConfig.NetworkMode", "default, which is the same network")
    elif mode != "default" or first != "bridge":
        yield from ("--network", network)
    yield from _addressed(asked, alias="--network-alias")
    yield from ("--mac-address", asked["MacAddress"]) if asked.get("MacAddress") else ()
    for link in asked.get("Links") or []:
        if link not in (host.get("Links") or []):
            yield from ("--link", link)
    yield from _unknown(asked)
    for name, other in others:
        yield from ("--network", csv_list(iter((f"name={name}", *_long(other or {})))))
        yield from _unknown(other or {})


def _is_meant(mode: str, network: str) -> bool:
    """Say whether a network mode means a network: by its name, or by its id, which is all hexadecimal."""
    is_id = set(mode) <= set("0123456789abcdef")
    return mode == network or is_id or (mode == "default" and network == "bridge")


def _addressed(endpoint: Json, *, alias: str) -> Iterator[str]:
    """Say names and addresses on one network, by options of their own."""
    ipam = endpoint.get("IPAMConfig") or {}
    for each in endpoint.get("Aliases") or []:
        yield from (alias, each)
    for key, flag in (("IPv4Address", "--ip"), ("IPv6Address", "--ip6")):
        if ipam.get(key):
            yield from (flag, ipam[key])
    for each in ipam.get("LinkLocalIPs") or []:
        yield from ("--link-local-ip", each)


def _long(endpoint: Json) -> Iterator[str]:
    """Say one network in the long form of `--network`."""
    options = list(_addressed(endpoint, alias="--alias"))
    for flag, value in zip(options[::2], options[1::2], strict=True):
        yield f"{flag.removeprefix('--')}={value}"
    if endpoint.get("MacAddress"):
        yield f"mac-address={endpoint['MacAddress']}"
    yield from _pairs_of("driver-opt", endpoint.get("DriverOpts"))
    yield from _priority(endpoint)


def _join(endpoint: Json) -> Said:
    """Say one network as options of `docker network connect`."""
    yield from _addressed(endpoint, alias="--alias")
    for link in endpoint.get("Links") or []:
        yield from ("--link", link)
    yield from pairs("--driver-opt", endpoint.get("DriverOpts") or {})
    for option in _priority(endpoint):
        yield from ("--gw-priority", option.partition("=")[2])
    if endpoint.get("MacAddress"):
        yield Unsaid("NetworkingConfig.EndpointsConfig.MacAddress", "it can be said only while the container is made")
    yield from _unknown(endpoint)


def _pairs_of(key: str, entries: Json | None) -> list[str]:
    """Say a map within the long form of an option."""
    return [f"{key}={name}={value}" for name, value in (entries or {}).items()]


def _priority(endpoint: Json) -> list[str]:
    return [f"gw-priority={endpoint['GwPriority']}"] if endpoint.get("GwPriority") else []


def _unknown(endpoint: Json) -> Said:
    ipam = endpoint.get("IPAMConfig") or {}
    found = [f".{key}" for key, value in endpoint.items() if key not in _ENDPOINT and not is_default(value)]
    found += [f".IPAMConfig.{key}" for key, value in ipam.items() if key not in _IPAM and not is_default(value)]
    for each in found:
        yield Unsaid(f"NetworkingConfig.EndpointsConfig{each}")
