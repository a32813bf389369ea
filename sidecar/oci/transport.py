"""One HTTP request to a registry or token server: bounded in time and size, TLS by rule, failures in words.

It follows no redirect and knows no credentials; a message of it never holds a header or a query.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

import sidecar
from sidecar.errors import Refused, Transient
from sidecar.oci.pace import Pace
from sidecar.oci.trust import Trust

MOST_BYTES = 4 * 1024 * 1024  # the size up to which registries take a manifest
_OK = 200
_BAD_REQUEST = 400
# What OpenSSL makes of an answer in plain HTTP.
_PLAIN_HTTP = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# A compressed body would have to be bounded twice.
_HEADERS = {"User-Agent": f"sidecar/{sidecar.__version__}", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. There is a body only with status 200."""

    url: URL
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes = b""


class _NoConnection(Transient):
    """No byte of the request was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a whole request may take, and how long its connection, the name and TLS included."""

    total_seconds: float = 30.0
    connect_seconds: float = 10.0


class Transport:
    """Sends requests over one session, its own unless it is given one."""

    def __init__(self, *, session: aiohttp.ClientSession | None, trust: Trust, pace: Pace, timeouts: Timeouts) -> None:
        self._session = session
        self._owns_session = session is None
        self._trust = trust
        self._pace = pace
        self._timeouts = timeouts
        self._schemes: dict[str, str] = {}

    async def close(self) -> None:
        """Close the session, if it is our own."""
        if self._session is not None and self._owns_session:
            await self._session.close()
            self._session = None

    async def ask(self, method: str, host: str, path: str, *, headers: Mapping[str, str]) -> Answer:
        """Send a request to a registry; as Docker does it, an insecure one is tried with TLS first and without it then.

        Raises:
            Transient, Refused: as ``send``.
        """
        if not self._trust.is_insecure(host):
            return await self.send(method, _url("https", host, path), headers=headers)
        known = self._schemes.get(host)
        scheme = known or "https"
        try:
            answer = await self.send(method, _url(scheme, host, path), headers=headers)
        except _NoConnection:
            self._schemes.pop(host, None)
            if known is not None:
                raise
            scheme = "http"
            answer = await self.send(method, _url(scheme, host, path), headers=headers)
        if answer.status != _BAD_REQUEST:  # what a TLS server answers to plain HTTP
            self._schemes[host] = scheme
        return answer

    async def send(
        self, method: str, url: URL, *, headers: Mapping[str, str], form: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request.

        Raises:
            Transient: no answer, not all of it, or one that says to come later.
            Refused: it would be plain HTTP to a host that is not insecure.
        """
        host = authority(url)
        self._pace.raise_if_quiet(host)
        if url.scheme != "https" and not (url.scheme == "http" and self._trust.is_insecure(host)):
            msg = f"{host} would be asked in plain HTTP, which only loopback and hosts listed as insecure are"
            raise Refused(msg)
        tls = self._trust.context(host) if url.scheme == "https" else True
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        try:
            async with self._session.request(
                method,
                url.with_user(None),  # an address cannot say who we are
                headers={**_HEADERS, **headers},
                data=form,
                ssl=tls,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=self._timeouts.total_seconds, connect=self._timeouts.connect_seconds
                ),
            ) as response:
                body = await _read(response, host) if response.status == _OK else b""
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
                self._trust.forget(host)
            raise self._failure(host, error) from None
        self._pace.note(host, response.status, response.headers)
        return Answer(url=url, status=response.status, headers=response.headers, body=body)

    def redirect_target(self, answer: Answer) -> URL | None:
        """Give where an answer sends us; None where it does not.

        Raises:
            Transient: it says nothing readable, or leads out of TLS.
        """
        if answer.status not in _REDIRECTS:
            return None
        host = authority(answer.url)
        location = answer.headers.get("Location", "").strip()
        try:
            target = answer.url.join(URL(location))
        except ValueError:
            target = URL()
        if not location or target.scheme not in {"http", "https"} or not target.host:
            msg = f"{host} answered {answer.status} and not where to go instead"
            raise Transient(msg)
        if answer.url.scheme == "https" and target.scheme != "https":
            msg = f"{host} redirects from https to {target.scheme} (host {authority(target)}), which is not followed"
            raise Transient(msg)
        return target

    def _failure(self, host: str, error: Exception) -> Transient:
        """Say in words what an exception means; its own text may hold addresses and headers."""
        match error:
            case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as cause):
                return _NoConnection(f"{host} has a certificate that is not trusted: {cause.verify_message}")
            case aiohttp.ClientConnectorDNSError():
                return _NoConnection(f"{host} is not found: its name does not resolve")
            case aiohttp.ClientConnectorError(os_error=cause):
                if isinstance(cause, ssl.SSLError) and cause.reason in _PLAIN_HTTP:
                    return _NoConnection(
                        f"{host} does not speak TLS; if it is meant to be asked without, name it in "
                        "SIDECAR_INSECURE_REGISTRIES"
                    )
                what = "no TLS connection to" if isinstance(cause, ssl.SSLError) else "no connection to"
                return _NoConnection(f"{what} {host}: {_reason(cause)}")
            case aiohttp.ConnectionTimeoutError():
                return _NoConnection(f"{host} took no connection within {self._timeouts.connect_seconds:g} seconds")
            case TimeoutError():
                return Transient(f"{host} did not answer within {self._timeouts.total_seconds:g} seconds")
            case aiohttp.ClientPayloadError():
                return Transient(f"{host} stopped in the middle of its answer")
            case aiohttp.ClientConnectionError() | OSError():
                return Transient(f"{host} closed the connection without an answer: {_reason(error)}")
            case _:
                return Transient(f"{host} answered with something that is not HTTP")


async def _read(response: aiohttp.ClientResponse, host: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MOST_BYTES:
            msg = f"{host} answered with more than {MOST_BYTES} bytes"
            raise Transient(msg)
    return bytes(body)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "TLS failed"
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__


def _url(scheme: str, host: str, path: str) -> URL:
    return URL(f"{scheme}://{host}{path}", encoded=True)


def authority(url: URL) -> str:
    """Give ``host[:port]`` as an image reference has it."""
    port = "" if url.explicit_port is None else f":{url.explicit_port}"
    return f"{url.host_subcomponent}{port}"
