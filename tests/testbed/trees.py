"""Root file systems made from Debian packages once, and kept in the user's cache folder.

A tree is never written to afterwards: machines mount it as the lower layer of their root. A part is
made under a temporary name and renamed when it is complete, so a name that exists is whole.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.testbed import packages
from tests.testbed.errors import PartError

_ENGINE = ("apparmor", "ca-certificates", "docker.io", "iptables")

_UNREAD = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")
"""Left out: nobody reads it there, and it is most of the files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A Debian release, the packages to add to its smallest set, and the form of the result."""

    suite: str
    include: tuple[str, ...]
    form: Literal["directory", "tar"] = "directory"

    @property
    def name(self) -> str:
        """Name the result so that another content gets another name."""
        digest = hashlib.sha256(" ".join([*self.include, *_UNREAD]).encode()).hexdigest()
        suffix = ".tar" if self.form == "tar" else ""
        return f"{self.suite}-{digest[:8]}{suffix}"


OLD_ENGINE = Recipe(suite="bookworm", include=_ENGINE)
NEW_ENGINE = Recipe(
    suite="trixie",
    include=(
        *_ENGINE,
        "busybox-static",
        "catatonit",
        "docker-buildx",
        "docker-cli",
        "docker-compose",
        "docker-registry",
        "aardvark-dns",
        "nginx",
        "podman",
    ),
)
TOOLS = NEW_ENGINE
"""Where the client, its plugins, the registry and busybox come from, for every engine."""

PYTHON_BASE = Recipe(suite="bookworm", include=("ca-certificates", "python3", "python3-venv"), form="tar")


def cache_folder() -> Path:
    """Name the folder that keeps what is slow to make."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "sidecar-testbed"


def path_of(recipe: Recipe) -> Path:
    """Name the place of a recipe's result, made or not."""
    return cache_folder() / recipe.name


def ready(recipe: Recipe) -> Path:
    """Return the recipe's result, making it first where nobody has."""
    path = path_of(recipe)
    if path.exists():
        return path
    packages.ensure()
    with _locked(path) as lock:
        if not path.exists():
            _make(recipe, path, lock)
    return path


def prepare(recipes: Iterable[Recipe]) -> list[Path]:
    """Make several results at once."""
    wanted = list(recipes)
    packages.ensure()
    with ThreadPoolExecutor() as threads:
        return list(threads.map(ready, wanted))


def tool(path: str) -> Path:
    """Name a file of the tools' tree, e.g. `usr/bin/docker`."""
    return ready(TOOLS) / path


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _make(recipe: Recipe, path: Path, lock: int) -> None:
    partial = path.with_name(f"{path.name}.partial")
    _remove(partial)
    log = path.with_name(f"{path.name}.log")
    command = [
        # Mounts of its own: where it is killed in the middle, nothing stays mounted in the tree.
        *("unshare", "--mount", "--propagation", "private", "mmdebstrap", "--variant=minbase"),
        *(f"--include={','.join(recipe.include)}", f"--format={recipe.form}"),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _UNREAD),
        *(recipe.suite, os.fspath(partial)),
    ]
    with log.open("w") as output:
        # It holds the lock too: where we are killed, the next maker waits until it has ended.
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, pass_fds=[lock], check=False)
    if done.returncode != 0:
        reason = log.read_text().strip()[-500:]
        message = f"Making the tree {recipe.name!r}: see {str(log)!r}: {reason}"
        raise PartError(message)
    partial.rename(path)


def _remove(partial: Path) -> None:
    if partial.is_dir():
        shutil.rmtree(partial)
    else:
        partial.unlink(missing_ok=True)
