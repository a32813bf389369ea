"""Logging in: answers a registry's challenge with a password or a token, and keeps the token while it is good.

Credentials go to the registry that they are for and to the token server that it names, never in plain HTTP to another
host than the registry itself.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from yarl import URL

from sidecar.core.image import DOCKER_HUB
from sidecar.errors import Refused, SidecarError, Transient
from sidecar.oci.credential import Credential, FindCredential
from sidecar.oci.flight import SingleFlight
from sidecar.oci.headers import Challenge, choose_challenge, read_challenges
from sidecar.oci.recent import Recent
from sidecar.oci.transport import Answer, Transport, authority
from sidecar.ports import Clock

# Sends the request with the headers given.
Send = Callable[[Mapping[str, str]], Awaitable[Answer]]

_OK = 200
_UNAUTHORIZED = 401
_REFUSALS = frozenset({_UNAUTHORIZED, 403})
_OAUTH_REFUSALS = frozenset({400, *_REFUSALS})  # OAuth 2 says invalid_grant by a 400
_DEFAULT_LIFETIME_SECONDS = 60.0  # the token specification's, where a server names none
_LONGEST_LIFETIME_SECONDS = 24 * 3600.0
_SLACK_SECONDS = 10.0  # a token this close to its end may be refused when it arrives
_MOST_LOGINS = 1024
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What we want to be let into.

    Attributes:
        host: ``host[:port]`` that answers.
        registry: whose credentials it may be given; None: nobody's, for we were sent there by another.
    """

    host: str
    registry: str | None
    repository: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Login:
    """What a challenge was answered with.

    Attributes:
        expires_at: monotonic.
        problem: why no credential could be read; it was answered without one.
    """

    challenge: Challenge
    is_plain: bool
    header: str = field(repr=False)
    expires_at: float
    is_anonymous: bool
    problem: SidecarError | None


class Logins:
    """Lets requests in, and remembers for each repository how."""

    def __init__(self, *, transport: Transport, clock: Clock, find_credential: FindCredential) -> None:
        self._transport = transport
        self._clock = clock
        self._find_credential = find_credential
        self._logins: Recent[Access, _Login] = Recent(_MOST_LOGINS)
        self._flights: SingleFlight[_Login] = SingleFlight()

    async def close(self) -> None:
        """Cancel the logins under way."""
        await self._flights.close()

    async def let_in(self, access: Access, send: Send) -> Answer:
        """Send a request, and log in and send it again where that is asked for; a rejected token is renewed once.

        Raises:
            Refused: we are not let in.
            Transient: the token server is down, busy, or answers nonsense.
        """
        header = await self._header(access)
        answer = await send(_headers(header))
        if answer.status == _UNAUTHORIZED:
            challenge = choose_challenge(read_challenges(answer.headers.getall("WWW-Authenticate", ())))
            if challenge is None:
                msg = f"{access.host} asks for a login (401) of a kind that is not known: no token and no password"
                raise Refused(msg)
            is_plain = answer.url.scheme == "http"
            header = await self._answer(access, challenge, is_plain=is_plain, rejected=header)
            answer = await send(_headers(header))
        if answer.status in _REFUSALS:
            login = self._logins.get(access)
            self._logins.drop(access)
            raise _refusal(access, answer.status, login)
        return answer

    def problem(self, access: Access) -> SidecarError | None:
        """Give why an access was asked for without credentials although some are configured."""
        login = self._logins.get(access)
        return login.problem if login else None

    async def _header(self, access: Access) -> str | None:
        login = self._logins.get(access)
        if login is None:
            return None
        if login.expires_at > self._clock.monotonic():
            return login.header
        # The same challenge again, without a request that is refused first.
        return await self._answer(access, login.challenge, is_plain=login.is_plain, rejected=login.header)

    async def _answer(self, access: Access, challenge: Challenge, *, is_plain: bool, rejected: str | None) -> str:
        login = self._logins.get(access)
        if login is not None and login.header != rejected and login.expires_at > self._clock.monotonic():
            return login.header  # somebody else was faster
        self._logins.drop(access)
        key = (access, challenge.scheme, challenge.realm, challenge.service, challenge.scope)
        login = await self._flights.share(key, lambda: self._log_in(access, challenge, is_plain=is_plain))
        self._logins.put(access, login)
        return login.header

    async def _log_in(self, access: Access, challenge: Challenge, *, is_plain: bool) -> _Login:
        credential, problem = await self._credential(access.registry)
        login = _Login(
            challenge=challenge,
            is_plain=is_plain,
            header="",
            expires_at=math.inf,
            is_anonymous=credential is None,
            problem=problem,
        )
        if challenge.scheme == "basic":
            if credential is None or credential.identity_token:
                raise _refusal(access, _UNAUTHORIZED, login)
            return replace(login, header=credential.basic())
        asked_at = self._clock.monotonic()
        answer = await self._ask_for_token(access, challenge, credential, is_plain=is_plain)
        is_oauth = credential is not None and bool(credential.identity_token)
        if answer.status in (_OAUTH_REFUSALS if is_oauth else _REFUSALS):
            raise _refusal(access, answer.status, login, server=authority(answer.url))
        token, seconds = _read_token(answer)
        good_seconds = seconds - min(_SLACK_SECONDS, seconds / 4)
        return replace(login, header=f"Bearer {token}", expires_at=asked_at + good_seconds)

    async def _credential(self, registry: str | None) -> tuple[Credential | None, SidecarError | None]:
        """Find a credential; where it cannot be read we ask without, as Docker does: most images are public."""
        if registry is None:
            return None, None
        try:
            return await self._find_credential(registry), None
        except (Refused, Transient) as problem:
            return None, problem

    async def _ask_for_token(
        self, access: Access, challenge: Challenge, credential: Credential | None, *, is_plain: bool
    ) -> Answer:
        realm = _realm(access, challenge, is_plain=is_plain, is_secret=credential is not None)
        scope = challenge.scope or f"repository:{access.repository}:pull"
        service = {"service": challenge.service} if challenge.service else {}
        if credential is not None and credential.identity_token:
            form = {"grant_type": "refresh_token", "client_id": "sidecar", "scope": scope, **service}
            form["refresh_token"] = credential.identity_token
            return await self._transport.send("POST", realm, headers={}, form=form)
        query = [*service.items(), *(("scope", part) for part in scope.split())]
        if credential is None:
            return await self._transport.send("GET", realm.extend_query(query), headers={})
        query.append(("account", credential.username))
        headers = {"Authorization": credential.basic()}
        return await self._transport.send("GET", realm.extend_query(query), headers=headers)


def _headers(authorization: str | None) -> dict[str, str]:
    return {} if authorization is None else {"Authorization": authorization}


def _realm(access: Access, challenge: Challenge, *, is_plain: bool, is_secret: bool) -> URL:
    """Give the token server's address, if it may be asked.

    Args:
        is_plain: the registry itself was asked in plain HTTP.
        is_secret: credentials would go there.
    """
    try:
        realm = URL(challenge.realm)
    except ValueError:
        realm = URL()
    if not realm.host or realm.scheme not in {"http", "https"}:
        msg = f"{access.host} names a token server that is no web address: {challenge.realm[:100]!r}"
        raise Transient(msg)
    is_same_host = realm.host == URL(f"http://{access.host}").host
    if realm.scheme == "http" and not (is_plain and (is_same_host or not is_secret)):
        msg = f"{access.host} names the token server {authority(realm)} in plain HTTP; nothing is sent there"
        raise Refused(msg)
    return realm


def _read_token(answer: Answer) -> tuple[str, float]:
    """Read a token and how many seconds it is good for."""
    host = authority(answer.url)
    if answer.status != _OK:
        msg = f"the token server {host} answered {answer.status}"
        raise Transient(msg)
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    fields = document if isinstance(document, dict) else {}
    token = fields.get("token") or fields.get("access_token")
    if not isinstance(token, str) or not _PRINTABLE.fullmatch(token):
        msg = f"the token server {host} answered without a token"
        raise Transient(msg)
    match fields.get("expires_in"):
        case int() | float() as seconds if seconds > 0:
            return token, float(min(seconds, _LONGEST_LIFETIME_SECONDS))
        case _:
            return token, _DEFAULT_LIFETIME_SECONDS


def _refusal(access: Access, status: int, login: _Login | None, *, server: str | None = None) -> SidecarError:
    """Say why we are not let in, and what to do about it."""
    who = access.host if server is None else f"the token server {server} of {access.host}"
    if login is not None and login.problem is not None:
        msg = (
            f"{who} lets nobody in without credentials ({status}), and those configured cannot be read: {login.problem}"
        )
        return Transient(msg) if isinstance(login.problem, Transient) else Refused(msg)
    if access.registry is None:
        return Refused(f"{who}, to which we were redirected, does not let us in ({status})")
    if login is not None and not login.is_anonymous:
        return Refused(
            f"{who} refuses the credentials for {access.registry} ({status}): "
            f"they are wrong, have expired, or do not allow this repository; {_how_to_give(access.registry)}"
        )
    return Refused(
        f"{who} does not let us in without credentials ({status}), or the repository does not exist; "
        f"{_how_to_give(access.registry)}"
    )


def _how_to_give(registry: str) -> str:
    file = "in the config.json that SIDECAR_REGISTRY_CREDENTIALS names"
    if registry == DOCKER_HUB:
        return f"give them as SIDECAR_REGISTRY_USERNAME and SIDECAR_REGISTRY_PASSWORD, or by `docker login` {file}"
    return f"give them by `docker login {registry}` {file}"
