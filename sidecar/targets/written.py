"""What is in a container's own layer, outside of its volumes: what Compose copied there, and all else. Pure.

Compose does not mount a config or a secret whose content stands in its file or in a variable: it copies it into the
container, and nothing in the inspect says so. A recreate would lose it, while what the application wrote into its layer
is lost by design and must not hide files of the new image. What tells them apart is their time of change. Compose
writes whole seconds of the moment just after the creation (as 2.26 does) or just before a start (as 5 does); a process
that writes a file leaves a fraction of a second, and what it unpacks is as old as the archive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from posixpath import dirname
from typing import Any

from sidecar.targets.containers import parse_time

Json = dict[str, Any]

_SERVICE = "com.docker.compose.service"
_SECRETS = "/run/secrets/"
_MODIFIED, _ADDED = 0, 1  # as the engine numbers the kinds of changes
_LARGEST_BYTES = 1 << 20  # a variable and a Compose file hold less
_MOST_IN_A_FOLDER = 100  # nobody declares so many configs; it is a cache, and each would be a question to the engine
_MOST = 1000  # of a layer into which a whole application was unpacked, the places where configs are: near the root
# Go's bits of a file mode: directory, symbolic link, device, pipe, socket, character device, irregular.
_NO_REGULAR_FILE = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19
_WRITABLE = 0o222

_ROUNDING_SECONDS = 1.0
_COPYING_SECONDS = 10.0  # between the creation or the copying, and what the engine says of creation and start
_SKEW_SECONDS = 600.0  # how much the clock of a client on another machine may differ


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file that a container's layer has and its image has not, or not so.

    Attributes:
        mode: Go's, as the engine gives it.
        modified: as the engine writes a time.
    """

    path: str
    is_added: bool
    size_bytes: int
    mode: int
    modified: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was found of Compose in a layer.

    Attributes:
        copied: paths of the files that Compose put there, in order.
        unclear: paths of those that it may have put there, or may not.
    """

    copied: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()


def may_have_copies(container: Json) -> bool:
    """Say whether Compose made a container: to others it copies nothing."""
    return _SERVICE in (container["Config"].get("Labels") or {})


def candidates(changes: Iterable[Json]) -> list[tuple[str, bool]]:
    """Give the paths worth a look, and whether they were added: no folder that something changed in, no crowd."""
    found = {str(change["Path"]): change["Kind"] for change in changes if change["Kind"] in (_MODIFIED, _ADDED)}
    crowds = Counter(map(dirname, found))
    single = [path for path in found if path not in crowds and crowds[dirname(path)] <= _MOST_IN_A_FOLDER]
    single.sort(key=lambda path: (not path.startswith(_SECRETS), path.count("/"), path))
    return [(path, found[path] == _ADDED) for path in single[:_MOST]]


def sort_out(container: Json, image: Json, files: Collection[File]) -> Written:
    """Tell what Compose copied into a container from what was written there."""
    regular = [file for file in files if not file.mode & _NO_REGULAR_FILE and file.size_bytes <= _LARGEST_BYTES]
    copied = [file.path for file in regular if _is_copied(file, container)]
    unclear = [file.path for file in regular if file.path not in copied and _is_unclear(file, container, image)]
    return Written(copied=tuple(sorted(copied)), unclear=tuple(sorted(unclear)))


def is_whole_second(time: str) -> bool:
    """Say whether a time of the engine has no fraction of a second: it writes none that is zero."""
    return "." not in time


def time_of_copy(container: Json) -> int:
    """Give the time that a copy in a container that was just created bears, so that the next look knows it for one."""
    return round(parse_time(container["Created"]) or 0.0)


def _is_copied(file: File, container: Json) -> bool:
    if file.is_added and file.path.startswith(_SECRETS):
        return True
    if not is_whole_second(file.modified):
        return False
    created, started, modified = _times(file, container)
    if modified < created - _ROUNDING_SECONDS:
        return False
    if started is None:
        return True  # it never ran, so nobody in it has written anything
    if modified > started + _ROUNDING_SECONDS:
        return False
    is_near = modified <= created + _COPYING_SECONDS or modified >= started - _COPYING_SECONDS
    # Between its creation and its last start it may have been started by Compose and have unpacked things.
    return is_near or not file.mode & _WRITABLE


def _is_unclear(file: File, container: Json, image: Json) -> bool:
    if not is_whole_second(file.modified):
        return False
    created, started, modified = _times(file, container)
    is_of_image = modified <= (parse_time(image.get("Created")) or 0.0)
    return not is_of_image and created - _SKEW_SECONDS <= modified <= (started or created) + _SKEW_SECONDS


def _times(file: File, container: Json) -> tuple[float, float | None, float]:
    created = parse_time(container["Created"]) or 0.0
    return created, parse_time(container["State"].get("StartedAt")), parse_time(file.modified) or 0.0


def why_unclear(name: str, paths: Sequence[str]) -> str:
    """Say of files that may be copies of Compose's why the container is left alone."""
    shown = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")  # noqa: PLR2004
    return (
        f"{name} cannot be recreated without a loss: whether {shown} is a config of Compose or was written by the "
        "application cannot be told; `docker compose up --detach --force-recreate` makes it anew with its configs"
    )


def has_own_files(container: Json, changes: Iterable[Json], *, copies: Collection[str]) -> bool:
    """Say whether there is more in a container's layer than what Compose copied and where its volumes are mounted."""
    places = {str(mount["Destination"]) for mount in container.get("Mounts") or []}
    expected = places | set(copies) | {str(container["Config"].get("WorkingDir") or "")}
    found = {str(change["Path"]) for change in changes if change["Kind"] in (_MODIFIED, _ADDED)}
    return not found - expected <= {above for path in found | expected for above in _above(path)}


def _above(path: str) -> Iterator[str]:
    while path.rpartition("/")[0]:
        path = path.rpartition("/")[0]
        yield path


def left_behind(name: str, written_bytes: int) -> str:
    """Say what stays in the layer of the old container."""
    return f"{_size(written_bytes)} that {name} wrote outside of its volumes stay behind with the old container"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:  # noqa: PLR2004
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
