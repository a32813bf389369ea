"""Inspects as engines give them, reduced to what a test is about; and the engine's own merge of image and request."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

Json = dict[str, Any]

CONTAINER_ID = "0123456789ab" + "c" * 52
SHORT_ID = "0123456789ab"
OLD_ID, NEW_ID = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def container(
    *, config: Json | None = None, host: Json | None = None, networks: Json | None = None, **top: Any
) -> Json:
    """Give a container on the default bridge that was made with no option at all."""
    return {
        "Id": CONTAINER_ID,
        "Name": "/web",
        "Image": OLD_ID,
        "Mounts": [],
        "Config": {"Hostname": SHORT_ID, "Image": "app:1", "Env": [], "Cmd": None, "Entrypoint": None, "Labels": {}}
        | (config or {}),
        "HostConfig": {"NetworkMode": "default", "Binds": None, "PortBindings": {}, "Runtime": "runc"} | (host or {}),
        "NetworkSettings": {"Networks": {"bridge": endpoint()} if networks is None else networks, "Ports": {}},
        **top,
    }


def endpoint(**asked: Any) -> Json:
    """Give an endpoint with everything that the engine fills in while it runs."""
    return {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": "f" * 64,
        "EndpointID": "e" * 64,
        "Gateway": "10.0.0.1",
        "IPAddress": "10.0.0.7",
        "IPPrefixLen": 24,
        "IPv6Gateway": "fd00::1",
        "GlobalIPv6Address": "fd00::7",
        "GlobalIPv6PrefixLen": 64,
        "MacAddress": "02:42:0a:00:00:07",
        "DNSNames": ["web", SHORT_ID],
    } | asked


def volume(destination: str, name: str, **other: Any) -> Json:
    """Give an entry of the inspect's own list of mounts."""
    return {"Type": "volume", "Name": name, "Destination": destination, "Driver": "local", "RW": True} | other


def image(image_id: str = OLD_ID, **config: Any) -> Json:
    return {"Id": image_id, "Os": "linux", "Architecture": "amd64", "Config": config}


def merged(request: Json, defaults: Json) -> Json:
    """Do what the engine's `merge` does with a request and the configuration of an image; both stay as they are."""
    config, defaults = deepcopy(request), deepcopy(defaults)
    for key in ("User", "WorkingDir", "StopSignal"):
        config[key] = config.get(key) or defaults.get(key) or ""
    for key in ("Labels", "ExposedPorts", "Volumes"):
        config[key] = (defaults.get(key) or {}) | (config.get(key) or {})
    named = {entry.partition("=")[0] for entry in config.get("Env") or []}
    inherited = [entry for entry in defaults.get("Env") or [] if entry.partition("=")[0] not in named]
    config["Env"] = (config.get("Env") or []) + inherited
    if not config.get("Entrypoint"):
        config["Cmd"] = config.get("Cmd") or defaults.get("Cmd")
        if config.get("Entrypoint") is None:
            config["Entrypoint"] = defaults.get("Entrypoint")
    if config["Entrypoint"] == [""]:
        config["Entrypoint"] = None
    own, theirs = config.get("Healthcheck") or {}, defaults.get("Healthcheck") or {}
    config["Healthcheck"] = theirs | {key: value for key, value in own.items() if value} or None
    return config
