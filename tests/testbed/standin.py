"""The stand-in for the official Python base image, where none can be pulled.

Debian's Python with `venv`; what pip needs on this machine (its certificates and package index) is read
at run time and put on top, so that `pip install` works in a build.
"""

import configparser
import hashlib
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.testbed import images, trees
from tests.testbed.engine import KEEP_LABEL, Engine
from tests.testbed.images import Image, Layer

TAG: Final = "sidecar-testbed/python:3"

_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_CERTIFICATE_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_INDEX_OPTIONS = ("index-url", "extra-index-url", "trusted-host")


def standin_base(engine: Engine) -> str:
    """Put the stand-in into an engine, unless it is there, and return its tag.

    An image built on it inherits the label that keeps it over `engine.wipe()`.
    """
    if not engine.docker("images", "--quiet", TAG).strip():
        images.load(engine, _image(), TAG)
    return TAG


def _image() -> Image:
    archive = trees.ready(trees.PYTHON_BASE)
    with archive.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    config = {
        "Cmd": ["python3"],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
        "Labels": {KEEP_LABEL: "true"},
    }
    layers = (Layer(content=archive, diff_id=f"sha256:{digest}"), _additions())
    return Image(layers=layers, config=config)


def _additions() -> Layer:
    """Add what the official image has (`python`) and what pip on this machine is set up with."""
    files: dict[str, str | bytes] = {
        "/usr/local/bin/python": '#!/bin/sh\nexec /usr/bin/python3 "$@"\n',
        "/etc/pip.conf": _pip_settings(_pip_files()),
    }
    if bundle := _certificates():
        files[_CERTIFICATES] = bundle.read_bytes()
    return images.packed(files)


def _certificates() -> Path | None:
    named = [os.environ[name] for name in _CERTIFICATE_VARIABLES if name in os.environ]
    return next((path for path in map(Path, [*named, _CERTIFICATES]) if path.is_file()), None)


def _pip_files() -> list[Path]:
    """List pip's configuration files, the strongest last, as pip does."""
    home = Path.home()
    own = os.environ.get("XDG_CONFIG_HOME") or home / ".config"
    shared = os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    return [
        *(Path(folder) / "pip/pip.conf" for folder in shared.split(os.pathsep)),
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        Path(own) / "pip/pip.conf",
        Path(os.environ.get("PIP_CONFIG_FILE", os.devnull)),
    ]


def _pip_settings(files: Iterable[Path]) -> str:
    """Write pip's configuration for the image: this machine's indexes, but no path, which would lead nowhere there."""
    found = configparser.RawConfigParser()
    found.read(files)
    kept = configparser.RawConfigParser()
    kept["global"] = {"cert": _CERTIFICATES, "disable-pip-version-check": "true"}
    for option in _INDEX_OPTIONS:
        variable = "PIP_" + option.upper().replace("-", "_")
        values = os.environ.get(variable) or found.get("global", option, fallback=None) or ""
        if remote := [value for value in values.split() if "/" not in value or value.startswith("http")]:
            kept["global"][option] = "\n".join(remote)
    text = io.StringIO()
    kept.write(text)
    return text.getvalue()
