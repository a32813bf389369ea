"""Reads an inspected container or image into our own words. Pure: decides and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sidecar.core.image import Digest, ImageRef
from sidecar.core.target import Health, Image, State

Json = dict[str, Any]

_STATES = {
    "created": State.CREATED,
    "running": State.RUNNING,
    "paused": State.PAUSED,
    "restarting": State.RESTARTING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The health of one container at one instant, on the engine's clock.

    Attributes:
        since: the first success of the unbroken tail of successes that the engine still has.
        is_unbroken: everything that it still has is a success, so one that was seen earlier may count.
    """

    health: Health
    since: float | None = None
    is_unbroken: bool = False


def parse_time(text: str | None) -> float | None:
    """Read a time of the engine as seconds since 1970; its zero time means never."""
    if not text or text.startswith("0001-"):
        return None
    return datetime.fromisoformat(text).timestamp()


def state_of(container: Json) -> State:
    """Read the state of an inspected container; one that is dead or being removed has exited."""
    return state_named(container["State"].get("Status", ""))


def state_named(word: str) -> State:
    """Read the engine's word for a state, as an inspect and a list have it."""
    return _STATES.get(word, State.EXITED)


def was_stopped(container: Json) -> bool:
    """Say whether somebody stopped a container: the engine itself would have started it again."""
    policy = (container["HostConfig"].get("RestartPolicy") or {}).get("Name")
    has_ended = state_of(container) is State.EXITED and not container["State"].get("Error")
    return has_ended and policy in ("always", "unless-stopped")


def health_of(container: Json) -> Checked:
    """Read its health: that of its check, or that it stays up where it has none."""
    state = container["State"]
    check = state.get("Health") or {}
    if state_of(container) is not State.RUNNING:
        return Checked(health=Health.STARTING)
    if check.get("Status", "none") in ("none", ""):
        return Checked(health=Health.HEALTHY, since=parse_time(state.get("StartedAt")))
    if check["Status"] == "unhealthy":
        return Checked(health=Health.UNHEALTHY)
    results = _results_of(state)
    tail: list[Json] = []
    for result in reversed(results):
        if result.get("ExitCode") != 0:
            break
        tail.append(result)
    if check["Status"] != "healthy" or not tail:
        return Checked(health=Health.STARTING)
    return Checked(health=Health.HEALTHY, since=parse_time(tail[-1].get("End")), is_unbroken=len(tail) == len(results))


def _results_of(state: Json) -> list[Json]:
    """Give the results of the health check since the container was started; the engine keeps those before it, too."""
    results = (state.get("Health") or {}).get("Log") or []
    started = parse_time(state.get("StartedAt")) or 0.0
    return [result for result in results if (parse_time(result.get("Start")) or 0.0) >= started]


def volumes_of(container: Json) -> set[str]:
    """Name the volumes of an inspected container."""
    return {mount["Name"] for mount in container.get("Mounts") or [] if mount.get("Type") == "volume"}


def is_connected(container: Json, wanted: Iterable[str]) -> bool:
    """Say whether an inspected container is on all of these networks."""
    return set(wanted) <= set((container.get("NetworkSettings") or {}).get("Networks") or {})


def start_error_of(container: Json) -> str:
    """Say why the last start of a container that does not run failed; empty where none did."""
    state = container["State"]
    return "" if state.get("Running") else str(state.get("Error") or "")


def detail_of(container: Json) -> str:
    """Say what the engine knows of a container's trouble, for a reason; empty when it knows of none."""
    state = container["State"]
    words = []
    if state.get("OOMKilled"):
        words.append("out of memory")
    if state.get("Error"):
        words.append(str(state["Error"])[:500])
    if state.get("ExitCode"):
        words.append(f"exit code {state['ExitCode']}")
    if (state.get("Health") or {}).get("Status") == "starting" and not state["Health"].get("Log"):
        words.append("its health check has not run once")
    last = (_results_of(state) or [{}])[-1]
    if last.get("ExitCode"):
        words.append(f"health check: exit code {last['ExitCode']}, {str(last.get('Output', '')).strip()[:200]!r}")
    return ", ".join(words)


def image_of(image: Json | None, ident: str, ref: ImageRef) -> Image:
    """Read an inspected image; of its digests those count under which the target's repository knows it."""
    if image is None:
        return Image(id=ident)
    digests = set()
    for text in image.get("RepoDigests") or []:
        try:
            known = ImageRef.parse(text)
        except ValueError:
            continue  # `<none>@<none>` of an image whose repository was removed
        if known.name == ref.name and known.digest is not None:
            digests.add(known.digest)
    return Image(id=image["Id"], digests=frozenset[Digest](digests), platform=platform_of(image))


def platform_of(image: Json) -> str:
    """Give ``os/architecture`` and the variant of an inspected image."""
    return "/".join(filter(None, (image.get("Os"), image.get("Architecture"), image.get("Variant"))))
