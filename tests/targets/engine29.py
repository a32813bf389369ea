"""The inspect of a container as Engine 29 (API 1.52, containerd's store) gives it, and those of its images.

No engine of this version can be run by the tests. The fields, and which of the older ones are gone, are those of
inspects that such engines gave; what is asked for in them is what only they know.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

Json = dict[str, Any]

OLD_INDEX, NEW_INDEX = "sha256:" + "1" * 64, "sha256:" + "2" * 64
OLD_MANIFEST, NEW_MANIFEST = "sha256:" + "8" * 64, "sha256:" + "9" * 64
CONTAINER_ID = "e53e06ca333c" + "4" * 52
AMD64 = {"architecture": "amd64", "os": "linux"}

_ENDPOINT: Json = {
    "IPAMConfig": None,
    "Links": None,
    "Aliases": ["shop-web-1", "web"],
    "DriverOpts": None,
    "GwPriority": 0,
    "NetworkID": "223c49178beb27cc05c66898ef4c83b95827efb7bf0eb2c57a478ef446211a16",
    "EndpointID": "68f1b4d01ebd23323b1f4d90c9dfa30b4bb75855aa7a1718e55eb18a421c242f",
    "Gateway": "172.18.0.1",
    "IPAddress": "172.18.0.2",
    "MacAddress": "42:8f:0d:70:9b:11",
    "IPPrefixLen": 16,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "DNSNames": ["shop-web-1", "web", "e53e06ca333c"],
}

_LABELS: Json = {
    "com.docker.compose.config-hash": "d1595c335f40bfd535ef538583ea533175dfaafaed880ec5f63746ca16156f53",
    "com.docker.compose.container-number": "1",
    "com.docker.compose.image": OLD_MANIFEST,
    "com.docker.compose.oneoff": "False",
    "com.docker.compose.project": "shop",
    "com.docker.compose.service": "web",
    "com.docker.compose.version": "5.5.0",
}

_HOST: Json = {
    "Binds": None,
    "NetworkMode": "shop_front",
    "PortBindings": {},
    "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
    "AutoRemove": False,
    "CgroupnsMode": "private",
    "IpcMode": "private",
    "ShmSize": 67108864,
    "Runtime": "runc",
    "Annotations": {"of": "mine"},
    "Mounts": [
        {"Type": "image", "Source": "models:1", "Target": "/models", "ImageOptions": {"Subpath": "small"}},
        {"Type": "volume", "Source": "shop_data", "Target": "/data", "VolumeOptions": {"Subpath": "web"}},
    ],
    "MaskedPaths": None,
    "ReadonlyPaths": None,
}

_CONFIG: Json = {
    "Hostname": "e53e06ca333c",
    "Domainname": "",
    "User": "",
    "ExposedPorts": {"80/tcp": {}},
    "Env": ["OWN=own", "PATH=/bin", "VERSION=1"],
    "Cmd": ["serve"],
    "Healthcheck": {"Test": ["CMD", "/health"], "StartInterval": 1000000000},
    "Image": "shop/web:stable",
    "WorkingDir": "/srv",
    "Entrypoint": ["/docker-entrypoint.sh"],
    "Labels": _LABELS,
    "StopSignal": "SIGQUIT",
}


def endpoint(network_id: str, **asked: Any) -> Json:
    return {**deepcopy(_ENDPOINT), "NetworkID": network_id * 64, **asked}


def container() -> Json:
    """A container of Compose 5.5 on two networks, with an image mounted."""
    return {
        "Id": CONTAINER_ID,
        "Created": "2026-08-15T10:00:00.709699658Z",
        "Path": "/docker-entrypoint.sh",
        "Args": ["serve"],
        "State": {"Status": "running", "Running": True, "StartedAt": "2026-08-15T10:00:01.973995477Z"},
        "Image": OLD_INDEX,
        "Name": "/shop-web-1",
        "RestartCount": 0,
        "Driver": "overlayfs",
        "Platform": "linux",
        "HostConfig": deepcopy(_HOST),
        "Mounts": [
            {"Type": "image", "Name": "models:1", "Source": "", "Destination": "/models", "Mode": "", "RW": False},
            {"Type": "volume", "Name": "shop_data", "Destination": "/data", "Driver": "local", "RW": True},
        ],
        "Config": deepcopy(_CONFIG),
        "NetworkSettings": {
            "SandboxID": "d2a49f4a069e777f9cc15cf8307397724b8265bcfc7d075114a58feb52a64332",
            "SandboxKey": "/var/run/docker/netns/d2a49f4a069e",
            "Ports": {"80/tcp": None},
            "Networks": {
                "shop_back": endpoint("b", GwPriority=0, IPAMConfig={"IPv4Address": "172.19.0.9"}),
                "shop_front": endpoint("f", GwPriority=9),
            },
        },
        "ImageManifestDescriptor": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": OLD_MANIFEST,
            "size": 2290,
            "annotations": {"org.opencontainers.image.version": "1"},
            "platform": AMD64,
        },
    }


def image(index: str, manifest: str, version: str) -> Json:
    """The inspect of an image, with its manifests."""
    return {
        "Id": index,
        "RepoTags": ["shop/web:stable"],
        "RepoDigests": [f"shop/web@{index}"],
        "Created": "2026-08-01T00:00:00Z",
        "Architecture": "amd64",
        "Os": "linux",
        "Config": {
            "Env": ["PATH=/bin", f"VERSION={version}"],
            "Cmd": ["serve"],
            "Entrypoint": ["/docker-entrypoint.sh"],
            "ExposedPorts": {"80/tcp": {}},
            "Healthcheck": {"Test": ["CMD", "/health"], "StartInterval": 1000000000},
            "WorkingDir": "/srv",
            "StopSignal": "SIGQUIT",
        },
        "Manifests": [
            {"ID": manifest, "Available": True, "Kind": "image", "ImageData": {"Platform": AMD64}},
            {"ID": "sha256:" + "a" * 64, "Available": True, "Kind": "attestation"},
            {
                "ID": "sha256:" + "b" * 64,
                "Available": False,
                "Kind": "image",
                "ImageData": {"Platform": {"os": "linux"}},
            },
        ],
    }
