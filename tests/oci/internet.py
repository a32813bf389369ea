"""A small internet on loopback: hosts by name, over TLS with an authority of its own and in plain HTTP.

Everything is real but the names: sockets, TLS, HTTP. What was asked is kept for a look.
"""

import asyncio
import json
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from sidecar.core.image import Digest
from sidecar.oci.manifest import digest_of

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

Host = Callable[[web.Request], Awaitable[web.StreamResponse]]

_NAMES = ("registry-1.docker.io", "auth.docker.io", "ghcr.io", "token.example", "other.example", "localhost")


@dataclass(frozen=True)
class Authority:
    """An authority and what it vouches for: a server with every name here, and one client."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    def client(self, kind: str) -> Path:
        """The client's certificate (`pem`) or key (`key`)."""
        return self.folder / f"client.{kind}"

    def replace_the_systems(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the system vouch for nobody of interest: quicker than reading all that it vouches for."""
        monkeypatch.setenv("SSL_CERT_FILE", str(self.client("pem")))
        monkeypatch.setenv("SSL_CERT_DIR", str(self.folder / "none"))

    def server_context(self, *, wants_client: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        if wants_client:
            context.load_verify_locations(self.certificate)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def make_authority(folder: Path) -> Authority:
    """Make keys and certificates with the `openssl` program."""
    alternatives = ",".join([*(f"DNS:{name}" for name in _NAMES), "IP:127.0.0.1"])
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    new = ["openssl", "req", "-x509", "-days", "2", *key]

    def issue(name: str, *options: str) -> None:
        files = ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"]
        subprocess.run([*new, *files, *options], cwd=folder, check=True, capture_output=True)

    by_ca = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    issue("ca", "-addext", "keyUsage=critical,keyCertSign")
    issue("server", *by_ca, "-addext", f"subjectAltName={alternatives}")
    issue("client", *by_ca)
    return Authority(folder)


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    scheme: str
    method: str
    host: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: str

    @property
    def line(self) -> str:
        return f"{self.method} {self.scheme}://{self.host}{self.path}"

    @property
    def authorization(self) -> str:
        return self.headers.get("Authorization", "")


@dataclass
class Internet(AbstractResolver):
    """Every name is this machine; port 443 is the TLS server, 80 the plain one, and others what they are."""

    ports: dict[int, int] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        if host in self.missing:
            msg = "no such name"
            raise OSError(msg)
        port = self.ports.get(port, port)
        found = {"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}
        return [ResolveResult(**found)]

    async def close(self) -> None:
        pass

    @property
    def lines(self) -> list[str]:
        return [asked.line for asked in self.asked]

    def of(self, host: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.host == host]

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = (await request.read()).decode()
        asked = Asked(request.scheme, request.method, request.host, request.path, request.query, request.headers, body)
        self.asked.append(asked)
        return await self.hosts.get(request.host, _nobody)(request)

    @asynccontextmanager
    async def server(self, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        """Serve the hosts on a port."""
        runner = web.ServerRunner(web.Server(self.answer), handle_signals=False, shutdown_timeout=0.01)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        try:
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()


@asynccontextmanager
async def internet(authority: Authority, *, wants_client: bool = False) -> AsyncIterator[Internet]:
    """Start both servers."""
    net = Internet()
    async with net.server(tls=authority.server_context(wants_client=wants_client)) as tls, net.server() as plain:
        net.ports.update({443: tls, 80: plain})
        yield net


@asynccontextmanager
async def session(net: Internet) -> AsyncIterator[aiohttp.ClientSession]:
    """Give a session for which names and ports are the internet's."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=net, use_dns_cache=False)) as one:
        yield one


async def _nobody(request: web.Request) -> web.StreamResponse:
    return web.Response(status=421, text=f"nobody is {request.host}")


@dataclass
class RegistryHost:
    """A registry of one repository path each; its next answers can be chosen.

    Attributes:
        instead: what is answered before anything else, once each.
        challenge: with one, a request needs one of `accepted` as its authorization.
    """

    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    instead: list[Host] = field(default_factory=list)
    challenge: str = ""
    accepted: set[str] = field(default_factory=set)
    headers: dict[str, str] = field(default_factory=dict)
    has_digests: bool = True
    refuses_head: int = 0

    def put(self, name: str, document: object, media_type: str = OCI_MANIFEST) -> Digest:
        """Push a document as `repository:tag`; give its digest, under which it is found as well."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = digest_of(body)
        repository = name.rpartition(":")[0]
        self.manifests[f"/v2/{repository}/manifests/{digest}"] = (media_type, body)
        self.manifests[f"/v2/{repository}/manifests/{name.rpartition(':')[2]}"] = (media_type, body)
        return digest

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if self.instead:
            return await self.instead.pop(0)(request)
        if self.challenge and request.headers.get("Authorization", "") not in self.accepted:
            return web.Response(status=401, headers={"WWW-Authenticate": self.challenge})
        if self.refuses_head and request.method == "HEAD":
            return web.Response(status=self.refuses_head)
        found = self.manifests.get(request.path)
        if found is None:
            return web.Response(status=404)
        media_type, body = found
        stated = {"Docker-Content-Digest": digest_of(body)} if self.has_digests else {}
        return web.Response(body=body, headers={"Content-Type": media_type, **stated, **self.headers})


@dataclass
class TokenHost:
    """A token server: it gives tokens that a registry accepts, to whom it knows or to anybody.

    Attributes:
        logins: the authorizations it knows; empty: anybody is let in.
        refresh_tokens: identity tokens it knows.
    """

    registry: RegistryHost
    logins: set[str] = field(default_factory=set)
    refresh_tokens: set[str] = field(default_factory=set)
    fields: dict[str, object] = field(default_factory=dict)
    instead: list[Host] = field(default_factory=list)
    issued: int = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if self.instead:
            return await self.instead.pop(0)(request)
        if request.method == "POST":
            is_known = (await request.post()).get("refresh_token") in self.refresh_tokens
        else:
            is_known = not self.logins or request.headers.get("Authorization", "") in self.logins
        if not is_known:
            return web.json_response({"details": "incorrect username or password"}, status=401)
        self.issued += 1
        token = f"token-{self.issued}"
        self.registry.accepted = {f"Bearer {token}"}
        name = "access_token" if request.method == "POST" else "token"
        return web.json_response({name: token, **self.fields})


def image(config: str = "a") -> dict[str, object]:
    """A manifest with a configuration."""
    described = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": f"sha256:{config * 64}", "size": 2}
    return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": []}


def index(*entries: tuple[str, Digest]) -> dict[str, object]:
    """An index of (platform, digest)."""
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [_entry(*entry) for entry in entries]}


def _entry(platform: str, digest: Digest) -> dict[str, object]:
    names = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
    return {"mediaType": OCI_MANIFEST, "digest": digest, "size": 2, **({"platform": names} if platform else {})}


def says(status: int = 200, *, body: bytes | str = b"", headers: Mapping[str, str] | None = None) -> Host:
    """Answer this."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return answer


def says_json(document: object, *, status: int = 200) -> Host:
    """Answer this document."""
    return says(status, body=json.dumps(document), headers={"Content-Type": "application/json"})


async def hang(_: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def stop_in_the_middle(request: web.Request) -> web.StreamResponse:
    """Promise more than is sent."""
    response = web.StreamResponse(headers={"Content-Type": OCI_MANIFEST, "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"schemaVersion": 2')
    assert request.transport is not None
    request.transport.close()
    return response
