"""Docker Hub: one body for each pushed tag, unsigned, six of them for a multi-platform push.

https://docs.docker.com/docker-hub/repos/manage/webhooks/
"""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.core.hint import Reading
from sidecar.core.image import DOCKER_HUB
from sidecar.errors import Malformed
from sidecar.sources.body import Body, bounded, read, read_hint

EXPECTED = "Docker Hub's {'push_data': {'tag': ...}, 'repository': {'repo_name': ...}}"
_HELM = "application/vnd.cncf.helm."

# Seconds since 1970 in traffic, 1.417566161e+09 in the documentation for years, and text in copies of both.
Moment = int | float | str | None


class PushData(Body):
    """What was pushed, when, and by whom."""

    pushed_at: Moment = None
    """When it was pushed."""
    pusher: str | None = None
    """The account that pushed."""
    tag: str | None = None
    """The pushed tag; missing in the bodies of 2014 and 2015, which meant ``latest``."""
    images: list[object] | None = None
    """Layer ids, long ago; null, empty or missing since."""
    media_type: str | None = None
    """Not documented: the media type of the pushed artifact's configuration."""


class Repository(Body):
    """Where it was pushed to."""

    namespace: str | None = None
    """The account or organisation; missing for official images."""
    owner: str | None = None
    """The same."""
    name: str | None = None
    """The repository's name in its namespace."""
    repo_name: str | None = None
    """Namespace and name, as in a pull."""
    repo_url: str | None = None
    """Its page."""
    date_created: Moment = None
    """When the repository was made."""
    description: str | None = None
    """One line about it."""
    dockerfile: str | None = None
    """What it was built from; only of automated builds."""
    full_description: str | None = None
    """Its page's text."""
    comment_count: int | None = None
    """Comments on its page."""
    is_official: bool | None = None
    """One of Docker's own."""
    is_private: bool | None = None
    """Needs a login to be pulled."""
    is_trusted: bool | None = None
    """Built by Docker Hub itself."""
    star_count: int | None = None
    """How many like it."""
    status: str | None = None
    """``Active``."""


class Push(Body):
    """The body of Docker Hub's webhook."""

    callback_url: str | None = None
    """Legacy address for an answer; Docker Hub sends it and stopped supporting it."""
    push_data: PushData | None = None
    """What was pushed."""
    repository: Repository
    """Where to."""


def parse(_headers: Mapping[str, str], body: bytes, _options: Mapping[str, str]) -> Reading:
    """Read a push of one tag."""
    push = read(Push, body, expected=EXPECTED)
    pushed, name = push.push_data or PushData(), _name(push.repository)
    if pushed.media_type and pushed.media_type.startswith(_HELM):
        return Reading(ignored="a Helm chart was pushed", pusher=bounded(pushed.pusher))
    if not (pushed.tag or pushed.pusher or pushed.pushed_at or pushed.media_type or pushed.images):
        return Reading(ignored="push_data is empty: nothing was pushed")
    # The host is written out, so that a repository named like one ("quay.io/app") stays on Docker Hub.
    hint = read_hint(f"{DOCKER_HUB}/{name}:{pushed.tag or 'latest'}")
    return Reading(hints=(hint,), pusher=bounded(pushed.pusher), callback_url=bounded(push.callback_url))


def _name(repository: Repository) -> str:
    """Give namespace and name; an official image has no namespace."""
    if repository.repo_name:
        return repository.repo_name
    if not repository.name:
        msg = f"reading the body: repository has neither repo_name nor name; expected {EXPECTED}"
        raise Malformed(msg)
    namespace = repository.namespace or repository.owner
    return f"{namespace}/{repository.name}" if namespace else repository.name
