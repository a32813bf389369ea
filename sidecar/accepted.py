"""What the value of a setting may look like: types that read the text of people and say what is accepted."""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from sidecar.core.image import ImageRef
from sidecar.tokens import LENGTH, SHORTEST

_SOURCE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_IN_PATH = re.compile(r"[A-Za-z0-9._~-]+")
_IN_HEADER = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*")


def _listed(value: object) -> object:
    """Read a list as people write it: JSON, or texts between commas or line breaks."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError as error:
            msg = f"is no JSON list ({error})"
            raise ValueError(msg) from None
    return [item.strip() for item in re.split(r"[,\n]", value) if item.strip()]


def _guard(value: SecretStr, allowed: re.Pattern[str], words: str) -> SecretStr:
    text = value.get_secret_value()
    if not text:
        msg = "is empty, which would let everybody in; leave it out, or give a value"
        raise ValueError(msg)
    if len(text) < SHORTEST:
        msg = f"is {len(text)} long; {LENGTH}"
        raise ValueError(msg)
    if not allowed.fullmatch(text):
        msg = f"has characters that cannot stand where it is sent; accepted are {words}"
        raise ValueError(msg)
    return value


def _path_guard(value: SecretStr) -> SecretStr:
    return _guard(value, _IN_PATH, "letters, digits and . _ ~ -")


def _header_guard(value: SecretStr) -> SecretStr:
    return _guard(value, _IN_HEADER, "visible ASCII characters, with single spaces between them")


def _not_empty(value: SecretStr) -> SecretStr:
    if not value.get_secret_value():
        msg = "is empty; leave it out, or give a value"
        raise ValueError(msg)
    return value


def _prefix(value: str) -> str:
    path = value.strip("/")
    if path and not re.fullmatch(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*", path):
        msg = "is no path; something like /sidecar is accepted"
        raise ValueError(msg)
    return f"/{path}" if path else ""


def _web_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        msg = "is no web address; something like https://hooks.example.com is accepted"
        raise ValueError(msg)
    return value.rstrip("/")


def _registry_host(value: str) -> str:
    try:
        is_host = ImageRef.parse(f"{value}/repository").registry == value.lower()
    except ValueError:
        is_host = False
    if not is_host:
        msg = "is no registry as it stands in an image's name; something like registry.example.com:5000 is accepted"
        raise ValueError(msg)
    return value


def _engine_address(value: str) -> str:
    parts = urlsplit(value)
    is_socket = parts.scheme == "unix" and parts.path.startswith("/")
    if not is_socket and not (parts.scheme in {"tcp", "http", "https"} and parts.hostname):
        msg = "is no engine address; unix:///path/to/docker.sock and tcp://host:2375 are accepted"
        raise ValueError(msg)
    return value


def _engine(value: object) -> object:
    if value in {"swarm", "kubernetes"}:
        msg = f"{value} is not supported yet; auto and docker are accepted"
        raise ValueError(msg)
    return value


def _seconds(value: object, unit: str) -> float:
    try:
        seconds = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else -1.0
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        msg = f"is no number of seconds from 0 up; accepted is something like {unit}"
        raise ValueError(msg)
    return seconds


def _any_seconds(value: object) -> float:
    return _seconds(value, "90")


def _resync_seconds(value: object) -> float:
    return _seconds(value, "21600, which is every six hours; 0 = never")


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]
PathToken = Annotated[SecretStr, AfterValidator(_path_guard)]
HeaderSecret = Annotated[SecretStr, AfterValidator(_header_guard)]
Password = Annotated[SecretStr, AfterValidator(_not_empty)]
Prefix = Annotated[str, AfterValidator(_prefix)]
RegistryHost = Annotated[str, AfterValidator(_registry_host)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
EngineAddress = Annotated[str, AfterValidator(_engine_address)]
EngineKinds = Annotated[
    tuple[Annotated[Literal["auto", "docker"], BeforeValidator(_engine)], ...], BeforeValidator(_listed)
]
Lower = BeforeValidator(_lower)
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, BeforeValidator(_any_seconds)]
ResyncSeconds = Annotated[float, BeforeValidator(_resync_seconds)]


class Strict(BaseModel):
    """What all settings have in common: nothing unknown, nothing changed later, no value in an error's text."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,
        hide_input_in_errors=True,
    )


class _Source(Strict):
    token: PathToken | None = None
    """The token in the path of its address. Default: TOKEN."""
    previous_token: PathToken | None = None
    """A second token that is accepted as well, while senders are given a new one."""

    @model_validator(mode="after")
    def _has_a_next(self) -> Self:
        if self.previous_token is not None and self.token is None:
            msg = "has a previous_token and no token that follows it; both are accepted, or token alone"
            raise ValueError(msg)
        return self

    @property
    def tokens(self) -> tuple[str, ...]:
        """Give the tokens of its own that its senders may use."""
        return tuple(secret.get_secret_value() for secret in (self.token, self.previous_token) if secret)


class DockerHubSource(_Source):
    """Docker Hub: it can send nothing but its body, so the token is in the path."""

    kind: Literal["dockerhub"]


class HeaderSource(_Source):
    """A sender that can send a header of its own."""

    authorization: HeaderSecret | None = None
    """The whole Authorization header that its senders send, instead of a token in the path. Default: none."""


class DistributionSource(HeaderSource):
    """A CNCF Distribution registry (registry:2, registry:3, GitLab's) that notifies."""

    kind: Literal["distribution"]
    registry: RegistryHost | None = None
    """The host by which the engine pulls, where the registry calls itself otherwise. Default: what it sends."""


class GenericSource(HeaderSource):
    """Anything that can send ``{"image": "repo:tag"}``."""

    kind: Literal["generic"]


Source = Annotated[DockerHubSource | DistributionSource | GenericSource, Field(discriminator="kind")]
SOURCE_FIELDS = {
    "dockerhub": DockerHubSource.model_fields,
    "distribution": DistributionSource.model_fields,
    "generic": GenericSource.model_fields,
}


SOURCES_EXAMPLE = '{"ci": {"kind": "generic", "token": "..."}}'


def _named_sources(value: object) -> object:
    """Let a source that is called like its kind leave the kind out."""
    if not isinstance(value, dict):
        return value
    for name in value:
        if not _SOURCE_NAME.fullmatch(str(name)):
            msg = f"has a source called {name!r}; a name of lower-case letters, digits, - and _ is accepted"
            raise ValueError(msg)
    return {
        name: {"kind": name, **source} if isinstance(source, dict) and name in SOURCE_FIELDS else source
        for name, source in value.items()
    }


def default_sources() -> dict[str, DockerHubSource | DistributionSource | GenericSource]:
    """Give every kind under its own name."""
    return {
        "dockerhub": DockerHubSource(kind="dockerhub"),
        "distribution": DistributionSource(kind="distribution"),
        "generic": GenericSource(kind="generic"),
    }


Sources = Annotated[dict[str, Source], BeforeValidator(_named_sources)]
