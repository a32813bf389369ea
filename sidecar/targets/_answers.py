"""What an answer of the engine says: its JSON, its clock and its version, as the call that asked needs it.

It sends nothing and judges nothing; an answer that is a no has become an error before it comes here.
"""

from __future__ import annotations

import base64
import json
from email.utils import parsedate_to_datetime
from typing import Any

import requests

Json = dict[str, Any]


def nothing(response: requests.Response) -> None:
    """Read an answer to its end, so that its connection can be used again."""
    response.content  # noqa: B018


def an_object(response: requests.Response) -> Json:
    """Read a JSON object."""
    answer: Json = response.json()
    return answer


def an_array(response: requests.Response) -> list[Json]:
    """Read a JSON array of objects."""
    answer: list[Json] = response.json()
    return answer


def object_and_date(response: requests.Response) -> tuple[Json, float]:
    """Read a JSON object, and the engine's clock as of it."""
    return an_object(response), _date_of(response)


def content(response: requests.Response) -> bytes:
    """Read what is no JSON."""
    return response.content


def path_stat(response: requests.Response) -> Json:
    """Read what is said of a file beside its content."""
    nothing(response)
    stat: Json = json.loads(base64.b64decode(response.headers.get("X-Docker-Container-Path-Stat", "")))
    return stat


def api_version_and_date(response: requests.Response) -> tuple[str | None, float]:
    """Read which API the engine speaks, and its clock."""
    nothing(response)
    return response.headers.get("Api-Version"), _date_of(response)


def _date_of(response: requests.Response) -> float:
    return parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
