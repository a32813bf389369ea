"""Measures the accept path beside two designs that do less, and the daemon's start and idle memory.

The designs take turns, so that whatever else the machine does hits all of them alike.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from bench.accept.ours import ALLOWED_PUSHERS, ALLOWED_REPOSITORIES, TOKEN
from bench.accept.process import Server, free_port, running
from bench.accept.start import an_engine, daemon_settings, measure_start

FOLDER = Path(__file__).parent
WARM_UP_SECONDS = 2
OURS = "Sidecar's accept path, everything on"

Command = list[str | Path]
Environ = dict[str, str]


@dataclass(frozen=True)
class Run:
    """What one run of wrk gave, and what it cost the server."""

    per_second: float
    cpu_microseconds: float
    median_milliseconds: float
    p99_milliseconds: float
    requests: int


@dataclass
class Design:
    """One of the servers that are compared.

    Attributes:
        command: gives the command and its environment for a port and a folder of its own.
    """

    name: str
    command: Callable[[int, Path], tuple[Command, Environ]]
    path: str
    runs: list[Run] = field(default_factory=list)
    memory_mib: float = 0.0

    def median(self, value: str) -> float:
        """Give the median of one of the values of its runs."""
        return statistics.median(getattr(run, value) for run in self.runs)


def measure_accepting(arguments: argparse.Namespace) -> None:
    """Run every design and print the tables."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: `apt-get install wrk`")
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-", dir=arguments.folder) as name, ExitStack() as stack:
        folder = Path(name)
        host = None if arguments.no_daemon else stack.enter_context(an_engine(folder))
        designs = list(_designs(arguments.bench_python, host))
        _compare(designs, folder, arguments)
        print(_table(designs, arguments))
        if host is not None:
            print(measure_start(folder, host, arguments.runs))


def _designs(bench_python: Path, engine_host: str | None) -> Iterator[Design]:
    address = f"/hooks/dockerhub/{TOKEN}"

    def script(name: str, *, python: Path | str = sys.executable) -> Callable[[int, Path], tuple[Command, Environ]]:
        return lambda port, folder: ([python, FOLDER / name, str(port), folder], {})

    def daemon(port: int, folder: Path) -> tuple[Command, Environ]:
        environ = daemon_settings(folder, str(engine_host), port)
        lists = {"ALLOWED_PUSHERS": ",".join(ALLOWED_PUSHERS), "ALLOWED_REPOSITORIES": ",".join(ALLOWED_REPOSITORIES)}
        environ |= {"SIDECAR_TOKEN": TOKEN} | {f"SIDECAR_{name}": value for name, value in lists.items()}
        return [sys.executable, "-m", "sidecar", "run"], environ

    yield Design(OURS, script("ours.py"), address)
    if engine_host is not None:
        yield Design("the daemon itself, beside an engine", daemon, address)
    yield Design("bare aiohttp and pydantic", script("bare.py"), "/")
    if bench_python.exists():
        yield Design("FastAPI and uvicorn", script("seed.py", python=bench_python), "/")


def _compare(designs: list[Design], folder: Path, arguments: argparse.Namespace) -> None:
    with ExitStack() as stack:
        servers = []
        for number, design in enumerate(designs):
            state = folder / f"design-{number}"
            state.mkdir()
            port = free_port()
            command, environ = design.command(port, state)
            server = running(command, port=port, output=state / "output", environ=environ)
            servers.append(stack.enter_context(server))
        for design, server in zip(designs, servers, strict=True):
            _load(design, server, connections=arguments.connections, seconds=WARM_UP_SECONDS)
        for number in range(arguments.runs):
            for design, server in zip(designs, servers, strict=True):
                run = _load(design, server, connections=arguments.connections, seconds=arguments.seconds)
                design.runs.append(run)
                print(f"run {number + 1}: {design.name}: {run.per_second:.0f}/s", file=sys.stderr)
        for design, server in zip(designs, servers, strict=True):
            design.memory_mib = server.memory_mib
    _check(folder / "design-0", designs[0])


def _load(design: Design, server: Server, *, connections: int, seconds: int) -> Run:
    """Let wrk send for some seconds; whatever is not answered with success ends the benchmark."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", "-s", str(FOLDER / "post.lua")]
    environ = {**os.environ, "BENCH_BODY": str(FOLDER / "body.json")}
    before = server.cpu_seconds
    done = subprocess.run(  # noqa: S603 - wrk, and an address of ours
        [*command, f"http://127.0.0.1:{server.port}{design.path}"],
        env=environ,
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds + 30,
    )
    cpu_seconds = server.cpu_seconds - before
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        sys.exit(f"{design.name}: {done.stdout}")
    requests = int(_found(r"(\d+) requests in", done.stdout))
    return Run(
        per_second=float(_found(r"Requests/sec:\s+([\d.]+)", done.stdout)),
        cpu_microseconds=cpu_seconds / requests * 1e6,
        median_milliseconds=_milliseconds(_found(r"(?m)^ +50% +(\S+)$", done.stdout)),
        p99_milliseconds=_milliseconds(_found(r"(?m)^ +99% +(\S+)$", done.stdout)),
        requests=requests,
    )


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, text
    return match[1]


def _milliseconds(text: str) -> float:
    number, unit = re.split(r"(?<=\d)(?=[a-z])", text)
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def _check(state: Path, design: Design) -> None:
    """See that what was timed happened: every answered delivery is in the journal and in the log."""
    requests = sum(run.requests for run in design.runs)
    with closing(sqlite3.connect(state / "journal.sqlite3")) as journal:
        ((kept,),) = journal.execute("SELECT max(seq) FROM deliveries")
    assert kept >= requests, f"{kept} of {requests} deliveries were kept"
    with (state / "log").open("rb") as log:
        told = sum(b'"delivery.accepted"' in line for line in log)
    assert told == kept, f"{told} of {kept} deliveries were logged"


def _table(designs: list[Design], arguments: argparse.Namespace) -> str:
    reference = designs[-1].median("per_second")
    rows = [
        f"| {design.name} | {design.median('per_second'):,.0f} | {design.median('per_second') / reference:.1f} "
        f"| {design.median('median_milliseconds'):.1f} | {design.median('p99_milliseconds'):.1f} "
        f"| {design.median('cpu_microseconds'):.0f} | {design.memory_mib:.0f} |"
        for design in designs
    ]
    title = f"Medians of {arguments.runs} runs of {arguments.seconds} s, {arguments.connections} connections"
    head = "| design | requests/s | times the last | median ms | 99 % ms | CPU us/request | MiB after |"
    return "\n".join([title, "", head, "|---|---:|---:|---:|---:|---:|---:|", *rows, ""])
