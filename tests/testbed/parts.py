"""All real parts of one test run: engines, started when first asked for, and registries.

Everything ends with the process that made it, even when that one is killed; what it leaves on disk is removed
by the next run, which knows a folder without an owner by its free lock.
"""

import fcntl
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.testbed import trees
from tests.testbed.engine import CONTAINERD_STORE, NEW, OLD, Engine, Release
from tests.testbed.machine import Machine
from tests.testbed.podman import PODMAN, Podman
from tests.testbed.processes import Process
from tests.testbed.registry import Registry

STORE_VERSION = f"{NEW.version}-containerd"

_KINDS: Mapping[str, tuple[Release, Mapping[str, Any]]] = {
    OLD.version: (OLD, {}),
    NEW.version: (NEW, {}),
    STORE_VERSION: (NEW, CONTAINERD_STORE),
}
KINDS = tuple(_KINDS)
"""The Docker engines there are: two versions, and the newer one with containerd's image store."""
PODMAN_KIND = "podman"

_PREFIX = "sidecar-testbed-run-"
_OWNER = "owner.lock"
"""Locked by the run that a folder belongs to, as long as it lives."""
_MAKING = "sidecar-testbed.lock"
"""Locked while a folder is made, so that nobody takes it for one without an owner."""


class Parts:
    """The parts of one run, in one folder; every registry is seen by every engine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._engines: dict[str, Engine] = {}
        self._made: list[Engine] = []
        self._registries: list[Registry] = []

    def engine(self, kind: str) -> Engine:
        """Give the one engine of a kind, running: one of `KINDS`, or Podman."""
        if kind not in self._engines:
            self._engines[kind] = self.new_engine(kind, kind)
        engine = self._engines[kind]
        engine.thaw()
        engine.start()
        for registry in self._registries:
            engine.admit(registry.port)
        return engine

    def new_engine(self, kind: str, name: str, **config: Any) -> Engine:
        """Make an engine of one's own in a folder of this name, not started; `config` adds to its configuration."""
        engine: Engine
        if kind == PODMAN_KIND:
            engine = Podman(self.directory / name, PODMAN)
        else:
            release, settings = _KINDS[kind]
            engine = Engine(self.directory / name, release, config={**settings, **config})
        self._made.append(engine)
        return engine

    def registry(self, **options: Any) -> Registry:
        """Start a new, empty registry, with the options of `Registry`."""
        registry = Registry(Path(tempfile.mkdtemp(prefix="registry-", dir=self.directory)), **options)
        registry.start()
        self._registries.append(registry)
        for engine in self._made:
            if engine.machine.first:
                engine.admit(registry.port)
        return registry

    def drop(self, registry: Registry) -> None:
        """End a registry that is not needed any more."""
        registry.stop()
        self._registries.remove(registry)

    def close(self) -> None:
        """End everything, engines that do not answer too."""
        for registry in self._registries:
            registry.stop()
        for engine in self._made:
            engine.turn_off()


@contextmanager
def parts() -> Iterator[Parts]:
    """Clean up after killed runs, then hold a folder with the parts of this one."""
    sweep()
    with ExitStack() as held:
        with _locked(_folder() / _MAKING):
            directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_folder()))
            held.enter_context(_locked(directory / _OWNER))
            held.callback(_remove, directory)
        run = Parts(directory)
        held.callback(run.close)
        yield run


def sweep() -> list[Path]:
    """Remove the folders of runs whose process is gone, and say which they were."""
    with _locked(_folder() / _MAKING):
        return [folder for folder in _folder().glob(f"{_PREFIX}*") if _remove_abandoned(folder)]


def prepare() -> None:
    """Make everything that is made once: the packages and the trees."""
    trees.prepare([trees.OLD_ENGINE, trees.NEW_ENGINE, trees.PYTHON_BASE])


def _folder() -> Path:
    return Path(tempfile.gettempdir())


@contextmanager
def _locked(path: Path, how: int = fcntl.LOCK_EX, *, mode: str = "w") -> Iterator[None]:
    with path.open(mode) as lock:
        fcntl.flock(lock, how)
        yield


def _remove_abandoned(folder: Path) -> bool:
    try:
        with _locked(folder / _OWNER, fcntl.LOCK_EX | fcntl.LOCK_NB, mode="r+"):
            for notes in folder.glob("*/machine.json"):
                Machine(notes.parent, notes.parent).turn_off()
            for notes in folder.glob("*/registry.json"):
                Registry(notes.parent).stop()
            for daemon in _daemons_of(folder):
                daemon.send(signal.SIGKILL)
            _remove(folder)
    except (BlockingIOError, FileNotFoundError):  # its owner lives, or has just removed it
        return False
    return True


def _daemons_of(folder: Path) -> Iterator[Process]:
    """Find every Sidecar that was started for an engine in a folder: it has nobody left who would end it."""
    mark = f"SIDECAR_DOCKER_HOST=unix://{folder}/".encode()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has just ended
            is_one = any(each.startswith(mark) for each in environ.read_bytes().split(b"\0"))
            if is_one and (found := Process.of(int(environ.parent.name))) is not None:
                yield found


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last: without it, others would take the rest for abandoned."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _OWNER:
            path.unlink()
    (folder / _OWNER).unlink()
    folder.rmdir()
