"""Who is believed: the token in an address, and the Authorization header."""

import hmac

import pytest

from sidecar.errors import Misconfigured
from sidecar.sources.auth import Credentials, Verdict

TOKEN, NEXT, HEADER = "0123456789abcdef", "fedcba9876543210", "Basic c2hvcDpzZWNyZXQ="


@pytest.mark.parametrize(
    "token, verdict",
    [
        (TOKEN, Verdict.OK),
        (NEXT, Verdict.OK),
        (None, Verdict.MISSING),
        ("", Verdict.MISSING),
        (TOKEN[:-1], Verdict.WRONG),
        (TOKEN + "0", Verdict.WRONG),
        (TOKEN.upper(), Verdict.WRONG),
        (TOKEN + NEXT, Verdict.WRONG),
        ("größer", Verdict.WRONG),
        ("\udcff\ud800", Verdict.WRONG),
    ],
)
def test_a_token_is_one_of_those_configured(token: str | None, verdict: Verdict):
    """Each of several tokens is let in, exactly as it is written."""
    assert Credentials.of(tokens=[TOKEN, NEXT]).verdict(token=token, authorization=None) is verdict


@pytest.mark.parametrize(
    "configured, sent, verdict",
    [
        (HEADER, HEADER, Verdict.OK),
        (HEADER, HEADER.lower(), Verdict.WRONG),
        (f"Bearer {TOKEN}", f"Bearer {TOKEN}", Verdict.OK),
        (f"Bearer {TOKEN}", TOKEN, Verdict.WRONG),
        (TOKEN, TOKEN, Verdict.OK),
        (TOKEN, f"Bearer {TOKEN}", Verdict.OK),
        (TOKEN, f"bearer {TOKEN}", Verdict.OK),
        (TOKEN, f"Basic {TOKEN}", Verdict.WRONG),
        (TOKEN, "Bearer ", Verdict.WRONG),
        (TOKEN, "Bearer", Verdict.WRONG),
        (TOKEN, f"Bearer {NEXT}", Verdict.WRONG),
        (TOKEN, None, Verdict.MISSING),
        (TOKEN, "", Verdict.MISSING),
    ],
)
def test_a_header_is_compared_whole_or_as_a_bearer_token(configured: str, sent: str | None, verdict: Verdict):
    """A header is let in verbatim; where only a token was configured, also with "Bearer" before it."""
    assert Credentials.of(authorizations=[configured]).verdict(token=None, authorization=sent) is verdict


def test_either_credential_is_enough():
    """With both configured one right credential is enough, and a wrong one beside it does no harm."""
    both = Credentials.of(tokens=[TOKEN], authorizations=[HEADER])
    assert both.verdict(token=TOKEN, authorization=None) is Verdict.OK
    assert both.verdict(token="wrong", authorization=HEADER) is Verdict.OK
    assert both.verdict(token=TOKEN, authorization="wrong") is Verdict.OK
    assert both.verdict(token="wrong", authorization=None) is Verdict.WRONG
    assert both.verdict(token=None, authorization=None) is Verdict.MISSING


def test_a_credential_of_the_other_kind_is_none():
    """What a source does not use counts as not sent: a proxy's own Authorization header, for one."""
    assert Credentials.of(tokens=[TOKEN]).verdict(token=None, authorization=HEADER) is Verdict.MISSING
    assert Credentials.of(authorizations=[HEADER]).verdict(token=TOKEN, authorization=None) is Verdict.MISSING


@pytest.mark.parametrize("tokens, authorizations", [([], []), ([""], []), ([TOKEN, ""], []), ([], [" "])])
def test_an_empty_secret_is_an_error(tokens: list[str], authorizations: list[str]):
    """What would let everybody in is refused when it is configured."""
    with pytest.raises(Misconfigured, match="one is empty"):
        Credentials.of(tokens=tokens, authorizations=authorizations)


def test_no_secret_is_shown():
    """Printed credentials tell nothing."""
    assert TOKEN not in repr(Credentials.of(tokens=[TOKEN], authorizations=[TOKEN]))


def test_every_secret_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch):
    """All tokens are compared, by the function made for it, though the first one matched."""
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: compared.append(other) or compare(one, other))
    assert Credentials.of(tokens=[TOKEN, NEXT]).verdict(token=TOKEN, authorization=None) is Verdict.OK
    assert compared == [TOKEN.encode(), NEXT.encode()]
