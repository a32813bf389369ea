"""Two versions of an image that says something about everything, and all that an update from one to the other means."""

from __future__ import annotations

from typing import Any
from unittest.mock import ANY

from tests.integration.inspects import Changes
from tests.testbed import images
from tests.testbed.images import Behaviour, Image

SECOND = 1_000_000_000


def app(version: str, *, behaviour: Behaviour = Behaviour.UNCHECKED, **config: Any) -> Image:
    """An image with a default for everything, another one in each version, but for what is named after that."""
    number = int(version)
    health = {
        "Test": ["CMD", "/health", version],
        "Interval": SECOND // 4 + number,
        "Timeout": 30 * SECOND + number,
        "StartPeriod": SECOND + number,
        "StartInterval": SECOND // 5 + number,
        "Retries": 100 + number,
    }
    defaults = {
        "Entrypoint": ["/enter", version],
        "Cmd": ["/serve", version],
        "Env": ["PATH=/bin", f"VERSION={version}", f"ONLY_{version}=yes", "SAME=same"],
        "Healthcheck": health,
        "StopSignal": "SIGINT" if version == "1" else "SIGTERM",
        "User": f"100{version}",
        "WorkingDir": f"/place-{version}",
        "ExposedPorts": {"8080/tcp": {}, f"810{version}/udp": {}},
        "Volumes": {"/data": {}, f"/only-{version}": {}},
    }
    return images.web(
        version,
        behaviour,
        labels={"same": "same", f"only-{version}": version},
        files={"/etc/app.conf": "default\n", "/enter": '#!/bin/sh\nshift\nexec "$@"\n'},
        **(defaults | config),
    )


# What an update from the first to the second version means for a container that was made without options.
BY_THE_IMAGE: Changes = {
    "Args": (["1", "/serve", "1"], ["2", "/serve", "2"]),
    "Config.Cmd": (["/serve", "1"], ["/serve", "2"]),
    "Config.Entrypoint": (["/enter", "1"], ["/enter", "2"]),
    "Config.Env.ONLY_1": ("ONLY_1=yes", None),
    "Config.Env.ONLY_2": (None, "ONLY_2=yes"),
    "Config.Env.VERSION": ("VERSION=1", "VERSION=2"),
    "Config.ExposedPorts.8101/udp": (True, None),
    "Config.ExposedPorts.8102/udp": (None, True),
    "Config.Healthcheck.Interval": (250_000_001, 250_000_002),
    "Config.Healthcheck.Retries": (101, 102),
    "Config.Healthcheck.StartInterval": (200_000_001, 200_000_002),
    "Config.Healthcheck.StartPeriod": (1_000_000_001, 1_000_000_002),
    "Config.Healthcheck.Test": (["CMD", "/health", "1"], ["CMD", "/health", "2"]),
    "Config.Healthcheck.Timeout": (30_000_000_001, 30_000_000_002),
    "Config.Labels.only-1": ("1", None),
    "Config.Labels.only-2": (None, "2"),
    "Config.Labels.org.opencontainers.image.version": ("1", "2"),
    "Config.StopSignal": ("SIGINT", "SIGTERM"),
    "Config.User": ("1001", "1002"),
    "Config.Volumes./only-1": (True, None),
    "Config.Volumes./only-2": (None, True),
    "Config.WorkingDir": ("/place-1", "/place-2"),
    "Mounts./only-2": (None, ANY),
}
# It holds what the first version had written, so it stays, though the second does not ask for it.
LEFT_BY_THE_IMAGE: Changes = {"Mounts./only-1": (None, ANY)}
SINCE_25 = "Config.Healthcheck.StartInterval"
