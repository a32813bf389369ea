"""The command line. Exit status: 0 done, 1 what was asked for failed, 2 usage or settings, 3 daemon or engine gone.

A command imports what it needs when it runs, so that `sidecar healthcheck` starts at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar import settings
from sidecar.cli.output import hint
from sidecar.errors import Misconfigured, SidecarError, Unreachable

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse has no public name for it

DONE, FAILED, WRONG, GONE = 0, 1, 2, 3
_INTERRUPTED = 130
_WHAT = "an image reference, a target, or a Compose service"


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> int:
    """Run one command and give its exit status."""
    asked = _parser().parse_args(argv)
    environ = settings.environment() if environ is None else environ
    try:
        return _run(asked, environ, cwd or Path.cwd())
    except Misconfigured as error:
        for line in str(error).splitlines():
            hint(f"sidecar: {line}")
        return WRONG
    except SidecarError as error:
        from sidecar.cli.daemon import DaemonUnreachable

        hint(f"sidecar: {error}")
        return GONE if isinstance(error, DaemonUnreachable | Unreachable) else FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing is flushed into the closed pipe at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _run(asked: argparse.Namespace, environ: Mapping[str, str], cwd: Path) -> int:
    match asked.command:
        case "healthcheck":
            from sidecar.cli import health

            return health.healthcheck(environ, cwd, ready=asked.ready)
        case "run":
            return _run_daemon(environ, cwd)
        case "take-over":
            return _take_over(environ, cwd)
        case "doctor":
            from sidecar.cli import doctor

            return doctor.doctor(environ, cwd, as_json=asked.json)
        case "check" | "token" | "url":
            return _run_local(asked, environ, cwd)
        case _:
            return _run_remote(asked, environ, cwd)


def _run_daemon(environ: Mapping[str, str], cwd: Path) -> int:
    import asyncio

    from sidecar.app import run
    from sidecar.settings_model import load

    loaded = load(environ, cwd)
    return asyncio.run(run(loaded.settings, loaded.remarks))


def _take_over(environ: Mapping[str, str], cwd: Path) -> int:
    import asyncio

    from sidecar.settings_model import load_settings
    from sidecar.taking_over import take_over

    return asyncio.run(take_over(load_settings(environ, cwd)))


def _run_local(asked: argparse.Namespace, environ: Mapping[str, str], cwd: Path) -> int:
    from sidecar.cli import local

    match asked.command:
        case "check":
            return local.check(environ, cwd, as_json=asked.json)
        case "token":
            return local.token(environ, cwd, admin=asked.admin, rotate=asked.rotate)
        case _:
            return local.url(environ, cwd, source=asked.source, base=asked.base)


def _run_remote(asked: argparse.Namespace, environ: Mapping[str, str], cwd: Path) -> int:
    from sidecar.cli import remote

    daemon = remote.daemon(asked.server, environ, cwd)
    match asked.command:
        case "targets":
            return remote.targets(daemon, as_json=asked.json)
        case "show":
            from sidecar.cli import show

            return show.show(daemon, asked.what, with_spec=asked.spec, as_json=asked.json)
        case "plan":
            return remote.plan(daemon, asked.ref, as_json=asked.json)
        case "update":
            return remote.update(daemon, asked.what, wait=asked.wait, as_json=asked.json)
        case "release":
            return remote.release(daemon, asked.what, as_json=asked.json)
        case _:
            return remote.history(daemon, limit=asked.limit, target=asked.target, as_json=asked.json)


def _named(text: str) -> str:
    if not text.strip():
        msg = "it is empty; the name of a target, or an image, is accepted"
        raise argparse.ArgumentTypeError(msg)
    return text


class _Version(argparse.Action):
    """Prints the version, which takes a while to find out, only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_args: object) -> None:
        from sidecar import __version__

        sys.stdout.write(f"sidecar {__version__}\n")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sidecar",
        description="Recreates labelled containers when a registry says that their image was pushed.",
        epilog="Exit status: 0 done, 1 what was asked for failed, 2 usage or configuration, 3 daemon or engine gone.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    json = argparse.ArgumentParser(add_help=False)
    json.add_argument("--json", action="store_true", help="print JSON")
    remote = argparse.ArgumentParser(add_help=False, parents=[json])
    remote.add_argument("--server", metavar="URL", help="address of the daemon (SIDECAR_SERVER); needs the admin token")
    _add_local(commands, json)
    _add_remote(commands, remote)
    return parser


def _add_local(commands: _Commands, json: argparse.ArgumentParser) -> None:
    commands.add_parser("run", help="run the daemon")
    commands.add_parser("take-over", help="update Sidecar's own container; run by Sidecar in a container of its own")
    commands.add_parser("check", parents=[json], help="print the configuration as it counts, without its secrets")
    commands.add_parser("doctor", parents=[json], help="look for what keeps it from working, and say what to do")
    command = commands.add_parser("url", help="print the webhook address to paste, and where")
    command.add_argument("source", metavar="SOURCE", help="dockerhub, distribution, generic, or a name of SOURCES")
    command.add_argument("--base", metavar="URL", help="where senders reach this host (SIDECAR_PUBLIC_URL)")
    command = commands.add_parser("token", help="print the token of webhook addresses")
    command.add_argument("--admin", action="store_true", help="the token of the API instead")
    command.add_argument("--rotate", action="store_true", help="make a new one first")
    command = commands.add_parser("healthcheck", help="say whether the daemon in this container lives")
    command.add_argument("--ready", action="store_true", help="say whether it can do its work")


def _add_remote(commands: _Commands, remote: argparse.ArgumentParser) -> None:
    commands.add_parser("targets", parents=[remote], help="list what is managed, and for everything else why not")
    command = commands.add_parser("show", parents=[remote], help="show all that is known of a target")
    command.add_argument("what", metavar="TARGET", type=_named, help=_WHAT)
    command.add_argument(
        "--spec", action="store_true", help="print a script that makes its container again, secrets included"
    )
    command = commands.add_parser("plan", parents=[remote], help="say what would be done now, and do nothing")
    command.add_argument("ref", metavar="REF", nargs="?", help=_WHAT)
    command = commands.add_parser("update", parents=[remote], help="look at targets now, and update those that are due")
    command.add_argument("what", metavar="REF|TARGET", type=_named, help=_WHAT)
    command.add_argument("--wait", action="store_true", help="wait for what becomes of it, and end with that")
    command = commands.add_parser(
        "release", parents=[remote], help="let a digest that failed on a target be tried again"
    )
    command.add_argument("what", metavar="REF|TARGET", type=_named, help=_WHAT)
    command = commands.add_parser("history", parents=[remote], help="list deliveries and rollouts, newest first")
    command.add_argument("--limit", type=_rows, default=50, metavar="N", help="at most so many, 1 to 1000 (50)")
    command.add_argument("--target", metavar="TARGET", help="only of this target, or of those of this Compose service")


def _rows(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:  # noqa: PLR2004 - as the API accepts
        msg = f"{text} is not between 1 and 1000"
        raise argparse.ArgumentTypeError(msg)
    return number
