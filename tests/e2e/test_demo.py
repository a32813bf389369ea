"""`make demo`, as somebody runs it who has nothing else."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.shipped import until
from tests.testbed.product import ROOT

# What a person reads without turning their head.
LONGEST_LINE = 130


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files alone; sockets are in it, so its path is short."""
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def path_without_docker(tmp_path: Path) -> str:
    """A PATH on which everything is found but a Docker client."""
    for folder in map(Path, reversed(os.environ["PATH"].split(os.pathsep))):
        for program in folder.glob("*") if folder.is_dir() else ():
            if not program.name.startswith("docker"):
                (tmp_path / program.name).unlink(missing_ok=True)
                (tmp_path / program.name).symlink_to(program)
    return str(tmp_path)


def test_the_demo_shows_an_update_and_a_rollback_and_leaves_nothing(temporary: Path, path_without_docker: str):
    """On a machine without Docker, and beside an engine that runs, it passes and leaves no process, file or port."""
    environ = {**os.environ, "TMPDIR": str(temporary), "PATH": path_without_docker}
    command = [sys.executable, "-m", "tests.e2e.demo"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environ, **pipes) as demo:
        until(lambda: any("dockerd" in each for each in left_running(temporary)), "its engine is seen")
        told, warned = demo.communicate()
    assert demo.returncode == 0, told + warned
    story = (
        '"event": "delivery.accepted"',
        '"event": "image.pulled"',
        '"event": "rollout.succeeded"',
        "the container answers: version 2",
        '"event": "rollout.rolling_back"',
        '"event": "rollout.rolled_back"',
        "the container answers: version 2; version 3 is not tried again",
        "Done.",
    )
    places = [told.find(words) for words in story]
    assert -1 not in places
    assert places == sorted(places)
    assert warned == ""
    assert len(told.splitlines()) < 30
    assert max(map(len, told.splitlines())) <= LONGEST_LINE

    assert left_running(temporary) == []
    assert [path.name for path in temporary.iterdir()] == ["sidecar-testbed.lock"]
    (port,) = re.findall(r"registry 127\.0\.0\.1:(\d+)", told)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(port))) != 0


def left_running(folder: Path) -> list[str]:
    """List the processes that know a folder: by their command line, their environment or their mounts."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            known = b"".join((process / name).read_bytes() for name in ("cmdline", "environ", "mountinfo"))
            if os.fsencode(folder) in known and int(process.name) != os.getpid():
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found
