"""What each recorded body gives: one row a file, so that a payload without an expectation is an error."""

import json
from pathlib import Path

import pytest

from sidecar.core.hint import Reading
from sidecar.sources import SOURCES

OWN = Path(__file__).parent / "payloads"
# Bodies captured by others, beside the repository on some machines; they are not needed.
OTHERS = Path(__file__).parents[3] / "shared" / "payloads"
FOLDERS = {"docker-hub": "dockerhub", "distribution": "distribution", "generic": "generic"}

HUB = "docker.io/shop/web"
REGISTRY = "registry.example.com:5000/team/app"
NO_PUSH = "no event is a push of a tag"
NO_HOST = "the event names no host that an image could be pulled from; set the source's option `registry`"
# File -> the references that it hints at, or why nothing follows from it.
EXPECTED: dict[str, list[str] | str] = {
    "dockerhub/push": [f"{HUB}:1.4"],
    "dockerhub/push.float-dates": [f"{HUB}:1.4"],
    "dockerhub/push.text-dates": [f"{HUB}:1.4"],
    "dockerhub/push.all-null": [f"{HUB}:latest"],
    "dockerhub/push.no-tag": [f"{HUB}:latest"],
    "dockerhub/push.official": ["docker.io/library/alpine:3.20"],
    "dockerhub/push.namespace-and-name": [f"{HUB}:1.4"],
    "dockerhub/push.owner-and-name": [f"{HUB}:1.4"],
    "dockerhub/push.named-like-a-host": ["docker.io/quay.io/web:1.4"],
    "dockerhub/helm-chart": "a Helm chart was pushed",
    "dockerhub/nothing-pushed": "push_data is empty: nothing was pushed",
    "dockerhub/nothing-pushed.null": "push_data is empty: nothing was pushed",
    "distribution/push": [f"{REGISTRY}:1.4"],
    "distribution/push.index": [f"{REGISTRY}:1.4"],
    "distribution/push.no-actor": [f"{REGISTRY}:1.4"],
    "distribution/push.host-of-url": [f"{REGISTRY}:1.4"],
    "distribution/push.user-in-url": [f"{REGISTRY}:1.4"],
    "distribution/push.bad-url": NO_HOST,
    "distribution/push.no-host": NO_HOST,
    "distribution/push.short-host": [f"{REGISTRY}:1.4"],
    "distribution/push.short-host-alone": NO_HOST,
    "distribution/push.several": [f"{REGISTRY}:1.4", f"{REGISTRY}:latest"],
    "distribution/push.several-pushers": [f"{REGISTRY}:1.4", f"{REGISTRY}:1.5"],
    "distribution/push.localhost": ["localhost/team/app:1.4"],
    "distribution/push.docker-hub-mirror": ["docker.io/library/alpine:1.4"],
    "distribution/digest-only": NO_PUSH,
    "distribution/blob": NO_PUSH,
    "distribution/pull": NO_PUSH,
    "distribution/mount": NO_PUSH,
    "distribution/delete": NO_PUSH,
    "distribution/delete.tag": NO_PUSH,
    "distribution/no-target": NO_PUSH,
    "distribution/no-repository": NO_PUSH,
    "distribution/empty": "the envelope is empty",
    "distribution/null": "the envelope is empty",
    "generic/image": ["registry.example.com/team/app:1.4"],
    "generic/images": [f"{HUB}:1.4", f"{HUB}:latest"],
    "generic/both": [f"{HUB}:1.4", "docker.io/shop/worker:1.4"],
    "generic/no-tag": [HUB],
    "generic/digest": [HUB],
    "generic/tag-and-digest": [f"{HUB}:1.4"],
    "generic/short": ["docker.io/library/alpine:3.20"],
    "generic/port": ["localhost:5000/app:1.4"],
    "generic/none": "it names no image",
    "generic/null-and-none": "it names no image",
}


def read(path: Path, kind: str, **options: str) -> Reading:
    return SOURCES[kind].parse({}, path.read_bytes(), options)


def own(name: str, **options: str) -> Reading:
    return read(OWN / f"{name}.json", name.partition("/")[0], **options)


def test_every_payload_has_an_expectation():
    """A body in the folder is a row of the table."""
    assert {str(path.relative_to(OWN).with_suffix("")) for path in OWN.rglob("*.json")} == set(EXPECTED)


@pytest.mark.parametrize("name, expected", EXPECTED.items())
def test_a_body_gives_its_hints_or_a_reason(name: str, expected: list[str] | str):
    """Each event hints at exactly the references that it names, or is ignored with a reason."""
    reading = own(name)
    assert (reading.ignored or [str(hint) for hint in reading.hints]) == expected


@pytest.mark.parametrize(
    "name, pusher",
    [
        ("dockerhub/push", "alice"),
        ("dockerhub/push.namespace-and-name", None),
        ("dockerhub/helm-chart", "alice"),
        ("distribution/push", "ci"),
        ("distribution/push.no-actor", None),
        ("distribution/push.several-pushers", None),
        ("generic/image", "ci"),
        ("generic/short", None),
    ],
)
def test_the_pusher_is_who_the_body_says(name: str, pusher: str | None):
    """The account is read where the sender gives one; where several pushed it is nobody in particular."""
    assert own(name).pusher == pusher


@pytest.mark.parametrize(
    "name, expected",
    [
        ("distribution/push.no-host", ["registry.example.com/team/app:1.4"]),
        ("distribution/push", ["registry.example.com/team/app:1.4"]),
        ("distribution/pull", []),
    ],
)
def test_the_registry_option_names_the_host(name: str, expected: list[str]):
    """The configured host counts, whatever the registry calls itself."""
    assert [str(hint) for hint in own(name, registry="registry.example.com").hints] == expected


def test_only_docker_hub_has_a_callback():
    """The legacy address is read for those who opted in."""
    assert own("dockerhub/push").callback_url == "https://registry.hub.docker.com/u/shop/web/hook/21a0b1c2d3e4f5/"
    assert own("dockerhub/push.no-tag").callback_url is None


if OTHERS.is_dir():
    OTHERS_EXPECTED = json.loads((OTHERS / "expected.json").read_text())
    OTHERS_BODIES = sorted(
        path
        for folder in FOLDERS
        for path in (OTHERS / folder).iterdir()
        if path.suffix in {".json", ".txt"} and not path.name.endswith(".headers.json")
    )

    @pytest.mark.parametrize("path", OTHERS_BODIES, ids=lambda path: f"{path.parent.name}/{path.name}")
    def test_a_captured_body_gives_what_it_must(path: Path):
        """A body in its expectations hints at those references; one that is not there is ignored with a reason."""
        name = f"{path.parent.name}/{path.name.removesuffix('.raw.txt').removesuffix('.json')}.json"
        reading = read(path, FOLDERS[path.parent.name], registry=OTHERS_REGISTRY.get(name, ""))
        expected = OTHERS_EXPECTED.get(name, {"refs": []})
        assert [str(hint) for hint in reading.hints] == expected.get("refs", OTHERS_DERIVED.get(name))
        assert bool(reading.ignored) is not bool(reading.hints)

    OTHERS_REGISTRY = {"distribution/push.gitlab.argocd-iu-1539.json": "registry.example.com:5000"}
    OTHERS_DERIVED = {
        "distribution/push.gitlab.argocd-iu-1539.json": ["registry.example.com:5000/mygroup/myimage:latest"]
    }
