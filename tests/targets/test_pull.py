"""What the stream of a pull means."""

import pytest

from sidecar.targets.pull import PullProgress, follow, is_refusal, without_secrets


def layer(ident: str, status: str, current: int | None = None, total: int | None = None) -> dict[str, object]:
    numbers = {"current": current, "total": total}
    return {
        "id": ident,
        "status": status,
        "progressDetail": {name: value for name, value in numbers.items() if value is not None},
    }


def numbers_of(*events: dict[str, object]) -> tuple[int, ...]:
    progress = PullProgress()
    for event in events:
        progress.feed(event)
    return tuple(progress.numbers().values())


def test_numbers_have_names():
    """What is told says bytes and layers, each so far and in all."""
    assert list(PullProgress().numbers()) == ["current_bytes", "total_bytes", "layers_done", "layers_total"]


@pytest.mark.parametrize(
    "events, expected",
    [
        pytest.param([], (0, 0, 0, 0), id="nothing"),
        pytest.param([{"id": "sha256:1", "status": "Pulling from app"}], (0, 0, 0, 0), id="reference"),
        pytest.param([{"status": "Digest: sha256:1"}, {"status": "Status: done"}], (0, 0, 0, 0), id="summary"),
        pytest.param([{"stream": "Trying to pull"}, {"id": None}], (0, 0, 0, 0), id="podman"),
        pytest.param([layer("a", "Pulling fs layer"), layer("b", "Waiting")], (0, 0, 0, 2), id="known"),
        pytest.param([layer("a", "Downloading", 5, 9), layer("b", "Waiting")], (5, 9, 0, 2), id="downloading"),
        pytest.param([layer("a", "Downloading", 5, 9), layer("a", "Download complete")], (9, 9, 0, 1), id="downloaded"),
        pytest.param([layer("a", "Downloading", 5, 9), layer("a", "Extracting", 1, 9)], (9, 9, 0, 1), id="extracting"),
        pytest.param([layer("a", "Downloading", 9, 9), layer("a", "Pull complete")], (9, 9, 1, 1), id="done"),
        pytest.param([layer("a", "Already exists"), layer("a", "Already exists")], (0, 0, 1, 1), id="exists"),
        pytest.param([layer("a", "Downloading", 5)], (5, 0, 0, 1), id="size unknown"),
        pytest.param([{"id": "a", "status": "Downloading"}], (0, 0, 0, 1), id="no detail"),
        pytest.param(
            [layer("a", "Downloading", 5, 9), layer("a", "Retrying in 5 seconds"), layer("a", "Downloading", 1, 9)],
            (1, 9, 0, 1),
            id="again",
        ),
    ],
)
def test_progress_is_the_sum_of_the_layers(events: list[dict[str, object]], expected: tuple[int, ...]):
    """Bytes and layers add up over all layers, whatever else the engine says between."""
    assert numbers_of(*events) == expected


def test_progress_is_told_ten_times_a_second_and_at_the_end():
    """Of events that come every sixteenth of a second each other one is told, and the last numbers always."""
    told: list[int] = []
    ticks = iter(range(10_000))
    events = [layer("a", "Downloading", current, 99) for current in range(100)]
    failure = follow(events, tell=lambda now: told.append(now["current_bytes"]), clock=lambda: next(ticks) / 16)
    assert failure is None
    assert told == [*range(0, 100, 2), 99]


def test_a_pull_that_ends_well_is_whole():
    """What the engine did not say of each layer is so once the stream has ended without a failure."""
    told: list[tuple[int, ...]] = []
    events = [layer("a", "Downloading", 1, 9), layer("b", "Download complete")]
    assert follow(events, tell=lambda now: told.append(tuple(now.values())), clock=lambda: 0.0) is None
    assert told == [(1, 9, 0, 1), (9, 9, 2, 2)]


@pytest.mark.parametrize(
    "event, reason",
    [
        ({"errorDetail": {"message": "no space left"}, "error": "no space left"}, "no space left"),
        ({"errorDetail": {"code": 1, "message": "denied"}}, "denied"),
        ({"error": "denied"}, "denied"),
        ({"errorDetail": {}}, "the engine gives no reason"),
    ],
)
def test_a_failure_in_the_stream_fails_the_pull(event: dict[str, object], reason: str):
    """An error event ends the pull with its reason, in each form that engines use."""
    told: list[object] = []
    assert follow([event, layer("a", "Pull complete")], tell=told.append, clock=lambda: 0.0) == reason
    assert not told


@pytest.mark.parametrize(
    "message",
    [
        "manifest for r:5000/app@sha256:00 not found: manifest unknown: manifest unknown",
        "pull access denied for app, repository does not exist or may require 'docker login': denied: requested access",
        'Head "https://r/v2/app/manifests/sha256:00": unauthorized: authentication required',
        "Get https://r/v2/app/manifests/1: no basic auth credentials",
        "unauthorized: incorrect username or password",
        "pull access denied, repository does not exist: server message: insufficient_scope: authorization failed",
        'failed to resolve reference "r/app@sha256:00": r/app@sha256:00: not found',
        "failed to fetch oauth token: unexpected status from GET request to https://a/token: 401 Unauthorized",
        "denied: Your authorization token has expired. Reauthenticate and try again.",
        "error parsing HTTP 403 response body: 403 Forbidden",
        "repository r/app not found: does not exist or no pull access",
        "repository name not known to registry: name unknown",
        "no matching manifest for linux/arm64/v8 in the manifest list entries",
        "no match for platform in manifest: not found",
        "image with reference app was found but does not match the specified platform: wanted linux/arm64",
        'image operating system "windows" cannot be used on this platform',
    ],
)
def test_the_registrys_no_is_a_refusal(message: str):
    """What the registry does not know, does not show, or has for other machines only is refused."""
    assert is_refusal(message)


@pytest.mark.parametrize(
    "message",
    [
        'Get "http://127.0.0.1:5000/v2/": dial tcp 127.0.0.1:5000: connect: connection refused',
        'Get "https://r/v2/": dial tcp: lookup r on 127.0.0.11:53: no such host',
        'Get "https://r/v2/": net/http: request canceled (Client.Timeout exceeded while awaiting headers)',
        "failed to register layer: write /x: no space left on device",
        "toomanyrequests: You have reached your pull rate limit",
        "denied: too many requests, rate limit exceeded",
        "received unexpected HTTP status: 503 Service Unavailable",
        "open /var/lib/docker/tmp/x: permission denied",
        "unexpected EOF",
        "filesystem layer verification failed for digest sha256:401403",
    ],
)
def test_an_outage_is_no_refusal(message: str):
    """Whatever may work later is tried again."""
    assert not is_refusal(message)


def test_no_secret_is_left_in_a_message():
    """What we logged in with does not come back in the words of a registry."""
    auth = {"username": "bot", "password": "hunter2", "identitytoken": "", "serveraddress": "r"}
    assert without_secrets("bot:hunter2 is wrong", auth) == "bot:*** is wrong"
