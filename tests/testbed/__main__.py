"""The real parts by hand: `python3 -m tests.testbed VERB`, of which `--help` has the list."""

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.testbed import packages, parts, trees
from tests.testbed.engine import RELEASES, Engine
from tests.testbed.errors import PartError
from tests.testbed.images import Behaviour, push, web
from tests.testbed.machine import Machine
from tests.testbed.product import sidecar_image
from tests.testbed.registry import Notification, Registry

_SPACE_WANTED_BYTES = 3 << 30


def main() -> int:
    """Do what the command line says; an error is one line."""
    arguments = _parser().parse_args()
    try:
        return int(arguments.run(arguments) or 0)
    except PartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m tests.testbed", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("packages", help="install and make what is made once")
    verb.set_defaults(run=_packages)
    verb = verbs.add_parser("up", help="start an engine and a registry that it sees; they stay")
    verb.add_argument("directory", type=Path, metavar="DIR")
    verb.add_argument("--engine", choices=RELEASES, default=next(iter(RELEASES)))
    verb.add_argument("--port", type=int, help="the registry's port; without, the one it had, or a free one")
    verb.add_argument("--notify", action="append", default=[], metavar="URL", help="where the registry sends events")
    verb.set_defaults(run=_up)
    verb = verbs.add_parser("image", help="build Sidecar's image as it is here on the engine of DIR, and print its tag")
    verb.add_argument("directory", type=Path, metavar="DIR")
    verb.set_defaults(run=_image)
    verb = verbs.add_parser("push", help="push a small web server to the registry of DIR, and print its digest")
    verb.add_argument("directory", type=Path, metavar="DIR")
    verb.add_argument("name", metavar="REPOSITORY:TAG")
    verb.add_argument("--version", default="1", help="what it answers on port 8080; without, 1")
    verb.add_argument("--behaviour", type=Behaviour, choices=list(Behaviour), default=Behaviour.HEALTHY)
    verb.set_defaults(run=_push)
    verb = verbs.add_parser("reach", help="print where a port that a container of DIR publishes answers on this host")
    verb.add_argument("directory", type=Path, metavar="DIR")
    verb.add_argument("port", type=int)
    verb.set_defaults(run=_reach)
    verb = verbs.add_parser("down", help="end what `up` started in DIR")
    verb.add_argument("directory", type=Path, metavar="DIR")
    verb.set_defaults(run=_down)
    verb = verbs.add_parser("doctor", help="say what this machine lacks, and what runs in DIR")
    verb.add_argument("directory", type=Path, metavar="DIR", nargs="?")
    verb.set_defaults(run=_doctor)
    verb = verbs.add_parser("sweep", help="remove what killed test runs left")
    verb.set_defaults(run=_sweep)
    return parser


def _packages(_: argparse.Namespace) -> None:
    parts.prepare()


def _up(arguments: argparse.Namespace) -> None:
    directory = arguments.directory.absolute()
    notifications = [Notification(url=url, name=f"hook-{number}") for number, url in enumerate(arguments.notify)]
    registry = Registry(
        directory / "registry",
        port=arguments.port or _port_before(directory / "registry"),
        notifications=notifications,
        leashed=False,
    )
    engine = Engine(directory / "engine", RELEASES[arguments.engine], leashed=False)
    registry.start()
    engine.start()
    engine.admit(registry.port)
    print(f"# engine {engine.api.get('/version')['Version']}, registry on {registry.address}")
    environment = engine.environment
    print(f"export DOCKER_HOST={environment['DOCKER_HOST']} DOCKER_CONFIG={environment['DOCKER_CONFIG']}")
    print(f"export PATH={directory / 'engine/client/bin'}:$PATH")
    print(f"# both stay until: python3 -m tests.testbed down {directory}")


def _image(arguments: argparse.Namespace) -> None:
    print(sidecar_image(_engine_of(arguments)))


def _push(arguments: argparse.Namespace) -> None:
    directory = arguments.directory.absolute() / "registry"
    registry = Registry(directory, port=_port_before(directory), leashed=False)
    print(push(registry, web(arguments.version, arguments.behaviour), arguments.name))


def _reach(arguments: argparse.Namespace) -> None:
    print(f"127.0.0.1:{_engine_of(arguments).reach(arguments.port)}")


def _engine_of(arguments: argparse.Namespace) -> Engine:
    """Give the engine that runs in DIR."""
    directory = arguments.directory.absolute() / "engine"
    for release in RELEASES.values():
        engine = Engine(directory, release, leashed=False)
        if engine.is_up() and str(engine.api.get("/version")["Version"]).startswith(f"{release.version}."):
            return engine
    msg = (
        f"no engine runs in {str(arguments.directory)!r}; start one: python3 -m tests.testbed up {arguments.directory}"
    )
    raise PartError(msg)


def _down(arguments: argparse.Namespace) -> None:
    directory = arguments.directory.absolute()
    Registry(directory / "registry", leashed=False).stop()
    Machine(directory / "engine", directory, leashed=False).turn_off()


def _sweep(_: argparse.Namespace) -> None:
    packages.require_root()
    for folder in parts.sweep():
        print(f"removed {folder}")


def _doctor(arguments: argparse.Namespace) -> int:
    findings = list(_findings())
    if arguments.directory:
        findings.extend(_running(arguments.directory.absolute()))
    for is_fine, text in findings:
        print(f"{'ok     ' if is_fine else 'missing'} {text}")
    return 0 if all(is_fine for is_fine, _ in findings) else 1


def _findings() -> Iterator[tuple[bool, str]]:
    yield os.geteuid() == 0, "root, for namespaces and mounts"
    yield "overlay" in Path("/proc/filesystems").read_text(), f"overlay file system (Linux {platform.release()})"
    lost = packages.missing()
    yield not lost, f"packages of this machine {lost or ''}: `python3 -m tests.testbed packages` installs them"
    for recipe in (trees.OLD_ENGINE, trees.NEW_ENGINE, trees.PYTHON_BASE):
        path = trees.path_of(recipe)
        yield path.exists(), f"{path}: made by `python3 -m tests.testbed packages`"
    cache = next(folder for folder in (trees.cache_folder(), *trees.cache_folder().parents) if folder.exists())
    free_bytes = shutil.disk_usage(cache).free
    yield free_bytes > _SPACE_WANTED_BYTES, f"disk space: {free_bytes >> 20} MiB free in {cache}, 3072 wanted"


def _running(directory: Path) -> Iterator[tuple[bool, str]]:
    for release in RELEASES.values():
        if trees.path_of(release.tree).exists():
            engine = Engine(directory / "engine", release, leashed=False)
            yield engine.is_up(), f"an engine answers on {engine.host}"
            break
    registry = Registry(directory / "registry", port=_port_before(directory / "registry"), leashed=False)
    yield registry.is_up(), f"a registry answers on {registry.address}"


def _port_before(directory: Path) -> int | None:
    try:
        config = json.loads((directory / "config.yml").read_text())
    except (OSError, ValueError):
        return None
    return int(config["http"]["addr"].rpartition(":")[2])


if __name__ == "__main__":
    sys.exit(main())
