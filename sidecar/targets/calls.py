"""The engine calls that can be chosen for one container, as values: what is chosen can be printed and compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PRE_UPDATE: Final = "pre-update"
POST_UPDATE: Final = "post-update"


@dataclass(frozen=True, slots=True)
class Create:
    """Create one end of the rollout from its recorded request, under the candidate's name or that of the parked one."""

    is_old: bool = False
    is_parked: bool = False


@dataclass(frozen=True, slots=True)
class Adopt:
    """Take a candidate as ours whose creation was not recorded any more; no engine call."""

    container_id: str
    is_old: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a container with its own grace and signal."""

    container_id: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start a container."""

    container_id: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Pause a container."""

    container_id: str


@dataclass(frozen=True, slots=True)
class Unpause:
    """Let a paused container go on."""

    container_id: str


@dataclass(frozen=True, slots=True)
class SetRestartPolicy:
    """Change the restart policy of a container: to ``no``, or back to its own."""

    container_id: str
    is_own: bool = False


@dataclass(frozen=True, slots=True)
class Rename:
    """Give a container the target's name, or that of the parked one."""

    container_id: str
    is_parked: bool = False


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a stopped container; with the anonymous volumes of its own creation where it is not the old one."""

    container_id: str
    volumes: bool


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect a container to a network as its request says."""

    container_id: str
    network: str


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Take a container off a network."""

    container_id: str
    network: str


@dataclass(frozen=True, slots=True)
class MoveTag:
    """Let the configured reference name this image."""

    image_id: str


@dataclass(frozen=True, slots=True)
class KeepPrevious:
    """Let our own tag keep this image, which a rollback by hand would need; what it kept before may go."""

    image_id: str


@dataclass(frozen=True, slots=True)
class Restart:
    """Stop a container with its own grace and signal, and start it again."""

    container_id: str


@dataclass(frozen=True, slots=True)
class RunHook:
    """Run a command of the user in a container, and remember that it was run."""

    container_id: str
    hook: str


Call = (
    Create
    | Adopt
    | Stop
    | Start
    | Restart
    | Pause
    | Unpause
    | SetRestartPolicy
    | Rename
    | Remove
    | Connect
    | Disconnect
    | MoveTag
    | KeepPrevious
    | RunHook
)


@dataclass(frozen=True, slots=True)
class Blocked:
    """No call is right: a container that no rollout of ours explains is in the way."""

    container_id: str


@dataclass(frozen=True, slots=True)
class Of:
    """A call for a container that goes with the target, by its name."""

    name: str
    call: Call | Blocked
