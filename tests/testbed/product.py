"""Sidecar's own image, built from the Dockerfile as it is now; built once for each state of what goes into it.

Each release of the engine builds its own, with its own builder.
"""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.testbed import trees
from tests.testbed.engine import Engine
from tests.testbed.standin import standin_base

ROOT: Final = Path(__file__).parents[2]
TAG: Final = "sidecar:testbed"

_CONTEXT: Final = (
    "Dockerfile",
    ".dockerignore",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "NOTICE",
    "requirements",
    "sidecar",
)


def sidecar_image(engine: Engine) -> str:
    """Put Sidecar's image into an engine, unless it is there, and return its tag."""
    if engine.docker("images", "--quiet", TAG).strip():
        return TAG
    state = _state()
    archive = trees.cache_folder() / f"sidecar-{state}-{engine.release.version}.tar"
    if archive.exists():
        engine.docker("load", "--quiet", "--input", str(archive))
        return TAG
    engine.build(ROOT, TAG, BASE_IMAGE=standin_base(engine))
    _keep(engine, archive, state)
    return TAG


def _keep(engine: Engine, archive: Path, state: str) -> None:
    """Save the image for the next run, in the place of those of earlier states."""
    partial = archive.with_suffix(f".{os.getpid()}.partial")  # another worker may be at it as well
    engine.docker("save", "--output", str(partial), TAG)
    for older in archive.parent.glob("sidecar-*.tar"):
        if state not in older.name:
            older.unlink(missing_ok=True)
    partial.replace(archive)


def _state() -> str:
    """Name the state of everything that goes into the image, the base it stands on included."""
    state = hashlib.sha256(str(trees.path_of(trees.PYTHON_BASE)).encode())
    for path in _files():
        state.update(f"{path.relative_to(ROOT)}\0".encode())
        state.update(path.read_bytes())
    return state.hexdigest()[:16]


def _files() -> Iterator[Path]:
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        *_CONTEXT,
    ]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return (ROOT / name for name in sorted(set(names) - {""}) if (ROOT / name).is_file())
