"""Asks registries over the OCI distribution API what references mean.

It only reads, and finds no credentials itself. What an answer is good for is decided in ``core/decide.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from sidecar.core.decision import Resolved
from sidecar.core.image import DOCKER_HUB, Digest, ImageRef
from sidecar.errors import Refused, SidecarError, Transient
from sidecar.oci.credential import FindCredential
from sidecar.oci.flight import SingleFlight
from sidecar.oci.headers import RateLimit
from sidecar.oci.login import Access, Logins
from sidecar.oci.manifest import MEDIA_TYPES, Manifest, Platform, digest_of, is_digest_of, read_manifest
from sidecar.oci.pace import Pace
from sidecar.oci.recent import Recent
from sidecar.oci.transport import Answer, Timeouts, Transport, authority
from sidecar.oci.trust import Trust
from sidecar.ports import Clock

_DOCKER_HUB_HOST = "registry-1.docker.io"
_ACCEPT = {"Accept": ", ".join(MEDIA_TYPES)}
_OK = 200
_NOT_FOUND = 404
# A HEAD that is answered so is asked again as a GET: some registries know no HEAD (405, 501) or take it for malformed
# (400), and Sonatype Nexus says 404 to a HEAD of what it has.
_NO_HEAD = frozenset({400, _NOT_FOUND, 405, 501})
_MOST_REDIRECTS = 3
_MOST_MANIFESTS = 512
_DEEPEST_INDEX = 4


class OciRegistry:
    """Every registry there is, as one port.

    Args:
        credentials: asked for a registry's credential when that registry wants one.
        session: used and left open; its own is made, and closed with it, where none is given.
        insecure: hosts, with or without port, that may be spoken to without TLS, as loopback always may.
        ca_file: more certificate authorities than the system's.
        certs_folder: Docker's ``/etc/docker/certs.d``.
        timeouts: of each request; the total is that of a whole question with all its requests, too.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        credentials: FindCredential,
        session: aiohttp.ClientSession | None = None,
        insecure: frozenset[str] = frozenset(),
        ca_file: Path | None = None,
        certs_folder: Path | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - a constant: it is frozen
    ) -> None:
        trust = Trust(insecure=insecure, ca_file=ca_file, certs_folder=certs_folder)
        self._timeouts = timeouts
        self._pace = Pace(clock)
        self._transport = Transport(session=session, trust=trust, pace=self._pace, timeouts=timeouts)
        self._logins = Logins(transport=self._transport, clock=clock, find_credential=credentials)
        self._resolving: SingleFlight[Resolved] = SingleFlight()
        self._reading: SingleFlight[Manifest] = SingleFlight()
        self._manifests: Recent[Digest, Manifest] = Recent(_MOST_MANIFESTS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel the questions under way, and close the session if it is our own."""
        await self._resolving.close()
        await self._reading.close()
        await self._logins.close()
        await self._transport.close()

    @property
    def rate_limits(self) -> Mapping[str, RateLimit]:
        """The pull limits as registries last stated them, by registry as in a reference. A HEAD counts against none."""
        limits = self._pace.rate_limits
        return {DOCKER_HUB if host == _DOCKER_HUB_HOST else host: limit for host, limit in limits.items()}

    async def resolve(self, ref: ImageRef) -> Resolved:
        """Ask what a tag means now, by a request that counts as no pull. A digest means itself, and nobody is asked.

        Raises:
            Transient: the registry is down, busy, or answers nonsense.
            Refused: it does not know the reference, or does not let us see it.
        """
        if ref.digest is not None:
            return Resolved.of(ref.digest)
        with _prefixed(f"resolving {ref}"):
            return await self._resolving.share_fresh(str(ref), lambda: self._resolve(ref))

    async def identities(self, ref: ImageRef, digest: Digest, *, platform: str) -> frozenset[str]:
        """Give everything that a digest's image for a platform may be recognised by, the digest included.

        Where an index has nothing for the platform that is the digest alone: the engine may know better what it runs.

        Raises:
            Transient, Refused: as ``resolve``.
        """
        identities: set[str] = {digest}
        with _prefixed(f"reading {ref.at(digest)}"):
            for _ in range(_DEEPEST_INDEX):
                manifest = await self._manifest(ref, digest)
                if manifest.config is not None:
                    identities.add(manifest.config)
                    break
                child = manifest.child_for(Platform.parse(platform))
                if child is None:
                    break
                identities.add(child)
                digest = child
        return frozenset(identities)

    async def _resolve(self, ref: ImageRef) -> Resolved:
        tag = ref.tag or "latest"
        async with self._deadline(ref):
            answer = await self._ask("HEAD", ref, tag)
            if answer.status == _OK:
                stated = _stated_digest(answer)
                # Without a digest, or as something else than was asked for (schema 1), the body has to tell.
                if stated is not None and _media_type(answer) in {"", *MEDIA_TYPES}:
                    return Resolved.of(stated)
            elif answer.status not in _NO_HEAD or (answer.status == _NOT_FOUND and ref.registry == DOCKER_HUB):
                raise self._failure(ref, tag, answer)  # Docker Hub counts a GET, and means its 404
            answer = await self._get(ref, tag)
            stated = _stated_digest(answer)
            if stated is not None and not is_digest_of(stated, answer.body):
                msg = f"{authority(answer.url)} answered with a body that is not the {stated} it states"
                raise Transient(msg)
            return Resolved.of(stated or digest_of(answer.body))

    async def _manifest(self, ref: ImageRef, digest: Digest) -> Manifest:
        manifest = self._manifests.get(digest)
        if manifest is None:
            manifest = await self._reading.share((ref.name, digest), lambda: self._read_manifest(ref, digest))
            self._manifests.put(digest, manifest)
        return manifest

    async def _read_manifest(self, ref: ImageRef, digest: Digest) -> Manifest:
        async with self._deadline(ref):
            answer = await self._get(ref, digest)
        host = authority(answer.url)
        if not is_digest_of(digest, answer.body):
            msg = f"{host} answered with a body that is not {digest}"
            raise Transient(msg)
        try:
            return read_manifest(answer.body)
        except ValueError as error:
            msg = f"{host} answered with a body that {error}"
            raise Transient(msg) from None

    async def _get(self, ref: ImageRef, reference: str) -> Answer:
        answer = await self._ask("GET", ref, reference)
        if answer.status != _OK:
            raise self._failure(ref, reference, answer)
        media_type = _media_type(answer)
        if media_type not in MEDIA_TYPES:
            msg = f"{authority(answer.url)} answered with the content type {media_type[:80]!r}, which is no manifest's"
            raise Transient(msg)
        return answer

    async def _ask(self, method: str, ref: ImageRef, reference: str) -> Answer:
        """Send one request, log in where asked to, and follow redirects; another host never sees the credentials."""
        host = _host(ref)
        path = f"/v2/{ref.repository}/manifests/{reference}"

        async def send(headers: Mapping[str, str], *, url: URL | None = None) -> Answer:
            headers = {**_ACCEPT, **headers}
            if url is None:
                return await self._transport.ask(method, host, path, headers=headers)
            return await self._transport.send(method, url, headers=headers)

        access = Access(host=host, registry=ref.registry, repository=ref.repository)
        answer = await self._logins.let_in(access, send)
        first = answer.url.origin()
        for _ in range(_MOST_REDIRECTS):
            target = self._transport.redirect_target(answer)
            if target is None:
                return answer
            registry = ref.registry if target.origin() == first else None
            access = Access(host=authority(target), registry=registry, repository=ref.repository)
            answer = await self._logins.let_in(access, partial(send, url=target))
        if self._transport.redirect_target(answer) is None:
            return answer
        msg = f"{host} redirects more than {_MOST_REDIRECTS} times"
        raise Transient(msg)

    @asynccontextmanager
    async def _deadline(self, ref: ImageRef) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeouts.total_seconds):
                yield
        except TimeoutError:
            msg = f"{_host(ref)} did not answer within {self._timeouts.total_seconds:g} seconds, logging in included"
            raise Transient(msg) from None

    def _failure(self, ref: ImageRef, reference: str, answer: Answer) -> SidecarError:
        host = authority(answer.url)
        if answer.status != _NOT_FOUND:
            return Transient(f"{host} answered {answer.status}")
        access = Access(host=host, registry=ref.registry, repository=ref.repository)
        problem = self._logins.problem(access)
        unread = (
            "" if problem is None else f"; asked without credentials, for those configured cannot be read: {problem}"
        )
        name = f"{ref.name}{'@' if ':' in reference else ':'}{reference}"
        return Refused(f"registry {host} does not know {name} (404){unread}")


@contextmanager
def _prefixed(doing: str) -> Iterator[None]:
    """Say at the start of every failure what was being done; many may share the failure, each gets its own."""
    try:
        yield
    except Transient as error:
        msg = f"{doing}: {error}"
        raise Transient(msg, retry_after_seconds=error.retry_after_seconds) from error
    except Refused as error:
        msg = f"{doing}: {error}"
        raise Refused(msg) from error


def _host(ref: ImageRef) -> str:
    return _DOCKER_HUB_HOST if ref.registry == DOCKER_HUB else ref.registry


def _media_type(answer: Answer) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _stated_digest(answer: Answer) -> Digest | None:
    text = answer.headers.get("Docker-Content-Digest", "").strip()
    try:
        return Digest(text) if text else None
    except ValueError:
        msg = f"{authority(answer.url)} states a digest that is none: {text[:100]!r}"
        raise Transient(msg) from None
