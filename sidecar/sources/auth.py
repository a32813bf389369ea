"""Whether a request carries a credential of its source. Every comparison takes the same time, right or wrong."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from sidecar.errors import Misconfigured


class Verdict(IntEnum):
    """What a request's credential is worth, the better the higher."""

    MISSING = 0
    WRONG = 1
    OK = 2


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the senders of one source may present; any one of them is enough.

    Attributes:
        tokens: what may stand in the path or the query, several while one is replaced by another.
        authorizations: whole ``Authorization`` headers; a bearer token also without the word before it.
    """

    tokens: tuple[bytes, ...] = field(default=(), repr=False)
    authorizations: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, *, tokens: Iterable[str] = (), authorizations: Iterable[str] = ()) -> Credentials:
        """Take what was configured.

        Raises:
            Misconfigured: there is nothing, or something empty, which would let everybody in.
        """
        credentials = cls(tuple(map(_encoded, tokens)), tuple(map(_encoded, authorizations)))
        secrets = credentials.tokens + credentials.authorizations
        if not secrets or not all(secret.strip() for secret in secrets):
            msg = "reading the credentials of a source: one is empty; expected a token or an authorization header"
            raise Misconfigured(msg)
        return credentials

    def verdict(self, *, token: str | None, authorization: str | None) -> Verdict:
        """Judge what a request presents."""
        return max(_judge(token, self.tokens), _judge_header(authorization, self.authorizations))


def _judge_header(presented: str | None, valid: Sequence[bytes]) -> Verdict:
    if not presented or not valid:
        return Verdict.MISSING
    scheme, _, bare = presented.partition(" ")
    return max(_judge(presented, valid), _judge(bare if scheme.lower() == "bearer" else None, valid))


def _judge(presented: str | None, valid: Sequence[bytes]) -> Verdict:
    if not presented or not valid:
        return Verdict.MISSING
    # All are compared: how long it takes does not tell which one it was.
    candidate = _encoded(presented)
    matches = [hmac.compare_digest(candidate, secret) for secret in valid]
    return Verdict.OK if any(matches) else Verdict.WRONG


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # a header may hold bytes that are no text
