"""What `sidecar doctor` sees of its own place: the state folder, and the engine's socket before it is spoken to."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sidecar.cli.finding import Finding, broken, doubtful, well

_VOLUME = 'mount a volume there:  volumes: ["sidecar-data:{folder}"]'


@dataclass(frozen=True, slots=True)
class Place:
    """Where the system says what it is; tests have their own."""

    mountinfo: Path = Path("/proc/self/mountinfo")
    container_mark: Path = Path("/.dockerenv")


def examine_state(folder: Path, place: Place) -> Iterator[Finding]:
    """See whether the state folder can be written, and whether it outlives the container."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        owner = f"let user {os.geteuid()} write it (chown {os.geteuid()}), or name another by SIDECAR_STATE_DIR"
        advice = _VOLUME.format(folder=folder) if error.errno == errno.EROFS else owner
        yield broken("state", f"{folder} cannot be written: {error.strerror}", advice)
        return
    yield well("state", f"{folder} can be written")
    mount, kind = _mount_of(existing, place)
    if kind in {"tmpfs", "ramfs"}:
        says = f"{folder} is in memory ({kind}): tokens and history are lost when the container or the host restarts"
        yield doubtful("state", says, _VOLUME.format(folder=folder))
    elif mount == "/" and (kind == "overlay" or place.container_mark.exists()):
        says = f"{folder} is inside the container: tokens and history are lost with it"
        yield doubtful("state", says, _VOLUME.format(folder=folder))


def _mount_of(path: Path, place: Place) -> tuple[str, str]:
    """Give mount point and file system of a path; nothing where the system does not tell."""
    try:
        lines = place.mountinfo.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return "", ""
    mounts = [_mount(line) for line in lines]
    resolved = path.resolve()
    # The last of equals lies over those before it.
    return max(
        ((point, kind) for point, kind in mounts if resolved.is_relative_to(point)),
        key=lambda mount: len(mount[0]),
        default=("", ""),
    )


def _mount(line: str) -> tuple[str, str]:
    before, _, after = line.partition(" - ")
    point = before.split(" ")[4]
    return point.encode("ascii", "backslashreplace").decode("unicode_escape"), after.split(" ")[0]


def examine_socket(url: str) -> Finding | None:
    """See whether the engine's socket can be opened; None where there is nothing to see but by asking."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return None
    path = Path(parts.path)
    try:
        found = path.stat()
    except FileNotFoundError:
        return broken(
            "engine",
            f"{path} does not exist",
            f'start Docker; in a container mount it:  volumes: ["/var/run/docker.sock:{path}"]',
        )
    except OSError as error:
        return broken("engine", f"{path} cannot be seen: {error.strerror}", "let this user reach its folder")
    if not stat.S_ISSOCK(found.st_mode):
        return broken(
            "engine",
            f"{path} is no socket",
            "the path did not exist on the host when it was mounted, so that Docker made a folder: start Docker first",
        )
    if os.access(path, os.R_OK | os.W_OK):
        return None
    group_may = found.st_mode & stat.S_IRGRP and found.st_mode & stat.S_IWGRP
    return broken(
        "engine",
        f"{path} belongs to user {found.st_uid} and group {found.st_gid}; user {os.geteuid()} may not use it",
        f'group_add: ["{found.st_gid}"]' if group_may else f'user: "{found.st_uid}"',
    )
