"""The stand-in for `registry:2`, which cannot be pulled everywhere: Debian's build of the same program in its place."""

import re
import subprocess
from typing import Final

from tests.testbed import images, trees
from tests.testbed.engine import Engine
from tests.testbed.images import Image

TAG: Final = "registry:2"

_PROGRAM = "/usr/bin/docker-registry"
# As in the official image: what is not set by the environment.
_SETTINGS = """\
version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/registry
http:
  addr: :5000
  headers:
    X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
"""


def load_registry_image(engine: Engine) -> None:
    """Put it into an engine."""
    files = {
        **{path: trees.tool(path[1:]).read_bytes() for path in _libraries()},
        "/bin/registry": trees.tool(_PROGRAM[1:]).read_bytes(),
        "/entrypoint.sh": '#!/bin/sh\nset -e\n[ -f "$1" ] && exec /bin/registry serve "$@"\nexec /bin/registry "$@"\n',
        "/etc/docker/registry/config.yml": _SETTINGS,
    }
    config = {
        "Entrypoint": ["/entrypoint.sh"],
        "Cmd": ["/etc/docker/registry/config.yml"],
        "Env": ["PATH=/bin"],
        "ExposedPorts": {"5000/tcp": {}},
        "Volumes": {"/var/lib/registry": {}},
    }
    images.load(engine, Image(layers=(*images.base().layers, images.packed(files)), config=config), TAG)


def _libraries() -> list[str]:
    """List what the program is linked with, the loader included."""
    command = ["chroot", str(trees.ready(trees.TOOLS)), "ldd", _PROGRAM]
    linked = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return re.findall(r"(/\S+) \(0x", linked)
