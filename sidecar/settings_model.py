"""Every setting: its name, its default, what is accepted, and why. Judges what `settings.py` found.

Only `app.py` and `cli` know `Settings`; everything else gets plain values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, FilePath, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from sidecar import watchtower_environment
from sidecar.accepted import (
    SOURCE_FIELDS,
    SOURCES_EXAMPLE,
    EngineAddress,
    EngineKinds,
    HeaderSecret,
    HeaderSource,
    Lower,
    Password,
    PathToken,
    Port,
    Prefix,
    ResyncSeconds,
    Seconds,
    Sources,
    Strict,
    Texts,
    WebAddress,
    default_sources,
)
from sidecar.core.watchtower import Rules
from sidecar.core.watchtower_names import Remark
from sidecar.errors import Misconfigured
from sidecar.settings import DEFAULT, ENVIRONMENT, PREFIX, Configuration, Written, environment, read

SECRETS = frozenset(
    {"token", "previous_token", "authorization", "admin_token", "registry_password", "watchtower_http_api_token"}
)
_NO_SECRETS = frozenset({"kind", "registry"})
# Of a value in a message.
LONGEST_SHOWN = 120


class Settings(Strict):
    """All settings. In the environment they are called ``SIDECAR_`` and the name in capitals."""

    host: str = "0.0.0.0"  # noqa: S104 - a container is reached from outside itself
    """Address to listen on. All of them: what is published is decided where the container is started."""
    port: Port = 8080
    """TCP port to listen on."""
    admin_port: Port | None = None
    """Second port for the API and the UI, so that only webhooks are published. Default: everything on PORT."""
    state_dir: Path
    """Folder of the journal, the generated tokens and the control socket. Default: the XDG state folder."""
    public_url: WebAddress | None = None
    """Where senders reach us, for the addresses that are shown. Default: unknown."""
    root_path: Prefix = ""
    """Path prefix under which a proxy passes requests on. Everything answers without it too."""

    token: PathToken | None = None
    """Token in webhook addresses, of at least 16 characters. Default: generated once and kept in STATE_DIR."""
    admin_token: HeaderSecret | None = None
    """Bearer token of the API, of at least 16 characters. Default: generated once and kept in STATE_DIR."""
    sources: Sources = Field(default_factory=default_sources)
    """Who may send, by name. Default: every kind under its own name with TOKEN; a given one replaces them all."""
    allowed_pushers: Texts = ()
    """Accounts whose pushes count, exact or glob. Empty: everybody's."""
    allowed_repositories: Texts = ()
    """Repositories that count, exact or glob. Empty: all."""
    dockerhub_callback: bool = False
    """Answer Docker Hub's legacy callback. Off: Docker Hub stopped supporting it, and it is a request to outside."""

    engines: EngineKinds = ("auto",)
    """What to look after; auto takes what answers."""
    docker_host: EngineAddress = "unix:///var/run/docker.sock"
    """Address of the Docker engine. Default: the standard variable DOCKER_HOST, then the usual socket."""
    default_enable: bool = False
    """Manage every container that does not say ``sidecar.enable=false``. Off: only those that say true."""
    scope: str | None = None
    """Only look after targets whose label ``sidecar.scope`` is this. Default: those without the label."""
    pull_repositories: Texts = ()
    """Globs of images that are kept pulled although no labelled container uses them."""
    resync_seconds: ResyncSeconds = 21600
    """Seconds between two looks at every target without being told, as webhooks get lost; 0: never."""
    debounce_seconds: Seconds = 2
    """Least seconds between two passes of one target: one push is often several posts."""
    settle_seconds: Seconds = 0
    """Seconds to wait after the first hint of a quiet target, for pushes that move a tag twice."""
    max_parallel_rollouts: Annotated[int, Field(ge=1)] = 2
    """How many targets pull or are stopped at once; one that only waits to become healthy does not count."""
    prune: Literal["none", "replaced", "dangling", "system"] = "replaced"
    """What is removed after an update. Replaced: only images that Sidecar itself took out of use."""
    stop_grace_seconds: Seconds = 8
    """Seconds to finish the step in hand when told to stop: less than the 10 after which Docker kills."""

    registry_credentials: Path
    """Docker's config.json, credential helpers included. Default: in DOCKER_CONFIG, then in ~/.docker."""
    registry_username: str | None = None
    """Account on Docker Hub, with REGISTRY_PASSWORD. Default: as in REGISTRY_CREDENTIALS."""
    registry_password: Password | None = None
    """Password or access token of that account."""
    insecure_registries: Texts = ()
    """Registries (host, or host:port) that are asked without TLS. Loopback needs no mention."""
    registry_ca_file: FilePath | None = None
    """PEM file of authorities that sign registries' certificates, beside the system's own."""

    log_level: Annotated[Literal["debug", "info", "warning", "error"], Lower] = "info"
    """Least severe level that is written."""
    log_format: Annotated[Literal["json", "console", "logfmt"], Lower] | None = None
    """How lines are written. Default: console on a terminal, json otherwise."""
    title: str = "Sidecar"
    """Name shown in pages and the API documentation."""
    env: str = ""
    """Environment (``production``) shown in pages and logged at the start."""
    docs: bool = False
    """Serve /openapi.json and /docs, to everybody who reaches the API's port. Off: nothing that is not needed."""

    watchtower_compat: bool = False
    """Honour Watchtower's labels, ``WATCHTOWER_*`` variables and API. Off: none of them is read."""
    watchtower_http_api_token: Password | None = None
    """Bearer token of /v1/update and /v1/metrics, of any length. Default: only the admin token is accepted there."""
    watchtower_http_api_update: bool = False
    """Let that token ask for updates."""
    watchtower_http_api_metrics: bool = False
    """Let that token read the metrics."""
    watchtower_disable_containers: Texts = ()
    """Names of containers that are left alone."""
    watchtower_monitor_only: bool = False
    """Only say that there is something, for every container: ``sidecar.action=notify``."""
    watchtower_no_pull: bool = False
    """The same: Watchtower would have watched images that are only built or pulled here."""
    watchtower_no_restart: bool = False
    """Only keep images pulled, for every container: ``sidecar.action=pull``."""
    watchtower_label_take_precedence: bool = False
    """Let the labels monitor-only and no-pull win over the settings. Off: either is enough."""
    watchtower_lifecycle_hooks: bool = False
    """Run the commands of the labels lifecycle.pre-update and lifecycle.post-update. Off: they are left out."""
    watchtower_include_stopped: bool = False
    """Recreate stopped containers too, and leave them stopped: ``sidecar.when-stopped=recreate``."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        alone = sorted(name for name in self.model_fields_set if name.startswith("watchtower_"))
        if alone and not self.watchtower_compat and alone != ["watchtower_compat"]:
            names = ", ".join(PREFIX + name.upper() for name in alone if name != "watchtower_compat")
            msg = f"{names}: accepted together with {PREFIX}WATCHTOWER_COMPAT=true only"
            raise ValueError(msg)
        if (self.registry_username is None) is not (self.registry_password is None):
            msg = (
                f"{PREFIX}REGISTRY_USERNAME and {PREFIX}REGISTRY_PASSWORD are accepted together; one of them is missing"
            )
            raise ValueError(msg)
        if self.admin_port and self.admin_port == self.port:
            msg = f"{PREFIX}ADMIN_PORT and {PREFIX}PORT are both {self.port}; leave the first out to have one port"
            raise ValueError(msg)
        return self

    def secret_values(self) -> frozenset[str]:
        """Give every secret that was set, for the log to hide."""
        own = (self.token, self.admin_token, self.registry_password, self.watchtower_http_api_token)
        given = {secret.get_secret_value() for secret in own if secret is not None}
        for source in self.sources.values():
            given.update(source.tokens)
            if isinstance(source, HeaderSource) and source.authorization:
                given.add(source.authorization.get_secret_value())
        return frozenset(given)

    @property
    def watchtower_rules(self) -> Rules | None:
        """Give what is asked of all containers in Watchtower's words; None where these do not count."""
        if not self.watchtower_compat:
            return None
        return Rules(
            scope=self.scope,
            monitor_only=self.watchtower_monitor_only,
            no_pull=self.watchtower_no_pull,
            no_restart=self.watchtower_no_restart,
            label_take_precedence=self.watchtower_label_take_precedence,
            lifecycle_hooks=self.watchtower_lifecycle_hooks,
            include_stopped=self.watchtower_include_stopped,
            disable_containers=frozenset(self.watchtower_disable_containers),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings, and where each value was written (``("sources", "hub", "token")`` -> origin); defaults are left out.

    Attributes:
        remarks: what is set in Watchtower's words and not honoured as it stands.
    """

    settings: Settings
    origins: Mapping[tuple[str, ...], str]
    remarks: tuple[Remark, ...] = ()


def load_settings(environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Settings:
    """Read and judge all settings.

    Raises:
        Misconfigured: one line for each problem.
    """
    return load(environ, cwd).settings


def load(environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Loaded:
    """Read and judge all settings, and say where each was written.

    Raises:
        Misconfigured: one line for each problem.
    """
    environ = environment() if environ is None else environ
    found = read(environ, cwd or Path.cwd(), secrets=SECRETS, objects={"sources": SOURCES_EXAMPLE})
    problems = [*found.problems, *_unknown(found.written)]
    remarks = _honour_watchtower(found)
    known = found.effective(empty_counts=SECRETS, only=Settings.model_fields)
    problems += _missing_credentials(known.get(("registry_credentials",)))
    try:
        settings = Settings.model_validate(_nested(known))
    except ValidationError as error:
        problems += [_explained(detail, known) for detail in error.errors()]
    else:
        if not problems:
            origins = {path: entry.origin for path, entry in known.items() if entry.origin != DEFAULT}
            return Loaded(settings=settings, origins=origins, remarks=remarks)
    raise Misconfigured("\n".join(problems))


def _honour_watchtower(found: Configuration) -> tuple[Remark, ...]:
    """Let Watchtower's variables count after ours, if that is asked for; and say which of them do not."""
    entry = found.effective(only=("watchtower_compat",)).get(("watchtower_compat",))
    try:
        is_asked = entry is not None and TypeAdapter(bool).validate_python(entry.value)
    except ValidationError:  # which is told like any other
        return ()
    if is_asked:
        found.written += watchtower_environment.settings_of(found.variables)
        return tuple(watchtower_environment.remarks_on(found.variables))
    if names := sorted(filter(watchtower_environment.is_foreign, found.variables)):
        return (Remark(", ".join(names), f"not read; {PREFIX}WATCHTOWER_COMPAT=true honours Watchtower's names"),)
    return ()


def _nested(known: Mapping[tuple[str, ...], Written]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for (*above, last), entry in known.items():
        place = values
        for part in above:
            place = place.setdefault(part, {})
        place[last] = entry.value
    return values


def _missing_credentials(entry: Written | None) -> list[str]:
    """Insist on a file that somebody names; Docker's own may come later, with a login."""
    if entry is None or not entry.key.lower().endswith("registry_credentials") or Path(str(entry.value)).is_file():
        return []
    return [f"{_located(entry)}: there is no such file; the path of a Docker config.json is accepted"]


def _unknown(written: Iterable[Written]) -> Iterator[str]:
    """Name every key that is no setting, once for each place, with the nearest that is one."""
    for entry in written:
        if entry.path[0] not in Settings.model_fields:
            place = f" in {entry.origin}" if entry.origin != ENVIRONMENT else ""
            yield f"{entry.key}{place} is not known{_nearest(entry, Settings.model_fields)}"


def _nearest(entry: Written, names: Iterable[str]) -> str:
    *above, last = entry.path
    known = [*names, *(f"{name}_file" for name in names if name in SECRETS)]
    if not (close := get_close_matches(last, known, n=1)):
        return f"; known are {', '.join(name if above else name.upper() for name in sorted(known))}"
    path = (*above, close[0])
    return f"; did you mean {PREFIX + '__'.join(path).upper() if entry.key.startswith(PREFIX) else '.'.join(path)}?"


def _explained(detail: ErrorDetails, known: Mapping[tuple[str, ...], Written]) -> str:
    """Say in one line what is wrong with which value, as it was written, and what is accepted."""
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    parts = [str(part) for part in detail["loc"]]
    # Between the name of a source and its field pydantic puts the kind that it took it for.
    kind = parts.pop(2) if parts[:1] == ["sources"] and len(parts) > 2 else None  # noqa: PLR2004 - after the name
    path = tuple(parts)
    entry = next((known[path[:end]] for end in range(len(path), 0, -1) if path[:end] in known), None)
    if path[:1] == ("sources",) and detail["type"] in {"dict_type", "model_attributes_type"}:
        message = f"is no source; SOURCES are something like {SOURCES_EXAMPLE}"
    if detail["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        message = f"needs a kind; accepted are {', '.join(SOURCE_FIELDS)}"
    if entry is None:
        return f"{PREFIX}{'__'.join(path).upper()}: {message}" if path else message
    if detail["type"] == "extra_forbidden" and kind is not None:
        return f"{entry.key} is not known{_nearest(entry, SOURCE_FIELDS[kind])}"
    return f"{_located(entry)}: {message}"


def _located(entry: Written) -> str:
    last = entry.path[-1]
    # Of a source only what is certainly none: a secret may stand under a misspelt name.
    is_secret = last in SECRETS or (entry.path[0] == "sources" and last not in _NO_SECRETS)
    shown = "***" if is_secret else repr(entry.value)[:LONGEST_SHOWN]
    return f"{entry.key}={shown}" + (f" in {entry.origin}" if entry.origin not in {ENVIRONMENT, entry.key} else "")
