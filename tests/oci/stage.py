"""A registry client on the small internet, with its clock and its credentials in the test's hands."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from sidecar.errors import SidecarError
from sidecar.oci.credential import Credential
from sidecar.oci.transport import Timeouts
from sidecar.registry import OciRegistry
from tests.fakes import FakeClock
from tests.oci.internet import Authority, Host, Internet, RegistryHost, TokenHost, image, internet, says, session

SECRET = "s3cr3t"
BEARER = 'Bearer realm="https://token.example/auth?x=1",service="ghcr.io",scope="repository:acme/app:pull"'
BASIC = "Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()


@dataclass
class Stage:
    """What a test holds."""

    net: Internet
    authority: Authority
    session: aiohttp.ClientSession
    clock: FakeClock = field(default_factory=FakeClock)
    credentials: dict[str, Credential | SidecarError] = field(default_factory=dict)
    looked_up: list[str] = field(default_factory=list)

    def registry(
        self,
        *,
        insecure: frozenset[str] = frozenset(),
        ca_file: Path | None = None,
        certs_folder: Path | None = None,
        seconds: float = 1.5,
        connect_seconds: float | None = None,
    ) -> OciRegistry:
        """Make a client that trusts the small internet's authority unless told which."""
        return OciRegistry(
            clock=self.clock,
            credentials=self.find_credential,
            session=self.session,
            insecure=insecure,
            ca_file=ca_file or (None if certs_folder else self.authority.certificate),
            certs_folder=certs_folder,
            timeouts=Timeouts(total_seconds=seconds, connect_seconds=connect_seconds or seconds),
        )

    async def find_credential(self, registry: str) -> Credential | None:
        self.looked_up.append(registry)
        found = self.credentials.get(registry)
        if isinstance(found, SidecarError):
            raise found
        return found

    def know(self, registry: str, *, username: str = "user", identity_token: str = "") -> Credential:
        """Configure a credential for a registry."""
        password = "" if identity_token else SECRET
        one = Credential(registry=registry, username=username, password=password, identity_token=identity_token)
        self.credentials[registry] = one
        return one

    def host(self, name: str) -> RegistryHost:
        """Put a registry on the internet."""
        self.net.hosts[name] = one = RegistryHost()
        return one


class Guarded:
    """A registry with a token server on another host."""

    def __init__(self, stage: Stage) -> None:
        self.registry: RegistryHost = stage.host("ghcr.io")
        self.registry.challenge = BEARER
        self.digest = self.registry.put("acme/app:1", image())
        self.tokens = TokenHost(self.registry)
        stage.net.hosts["token.example"] = self.tokens


def denied() -> Host:
    return says(401, headers={"WWW-Authenticate": BEARER})


@asynccontextmanager
async def staged(authority: Authority, *, wants_client: bool = False) -> AsyncIterator[Stage]:
    """Start the internet and a session on it."""
    async with internet(authority, wants_client=wants_client) as net, session(net) as one:
        yield Stage(net=net, authority=authority, session=one)
