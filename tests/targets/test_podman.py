"""Podman's inspects in Docker's words; what is not named here goes through as it is."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.image import ImageRef
from sidecar.core.policy import Policy
from sidecar.core.target import Kind, Target
from sidecar.targets import podman
from sidecar.targets.spec import create_request
from tests.targets.inspects import CONTAINER_ID, SHORT_ID, container, endpoint, image

Json = dict[str, Any]
SECOND = 1_000_000_000
STARTED = "2026-01-01T00:00:00.5Z"
STARTED_SECONDS = 1767225600.5
CHECK = {"Test": ["CMD", "x"], "Interval": 2 * SECOND, "Timeout": SECOND, "StartPeriod": 3 * SECOND}


def native(*, config: Json | None = None, host: Json | None = None, **top: Any) -> Json:
    """Give what Podman's own API says of a container that was made without options."""
    return {"OCIRuntime": "crun", "Config": config or {}, "HostConfig": host or {}, **top}


def read(shown: Json, own: Json | None = None) -> Json:
    """Give a container in Docker's words."""
    return podman.container_of({"State": {"Status": "running"}} | shown, own or native())


def test_podman_is_known_by_its_components():
    """Docker names components as well, and older engines none."""
    assert podman.is_podman({"Components": [{"Name": "Podman Engine"}, {"Name": "Conmon"}]})
    assert not podman.is_podman({"Components": [{"Name": "Engine"}]})
    assert not podman.is_podman({})


def test_a_list_is_filtered_in_its_words():
    """It finds no image by an id with its prefix, and refuses states that it does not know."""
    wanted = {"ancestor": ["sha256:1", "app"], "status": ["exited", "dead"], "name": ["web"]}
    assert podman.filters(wanted) == {"ancestor": ["1", "app"], "status": ["exited"], "name": ["web"]}
    assert podman.filters({"name": ["web"]}) == {"name": ["web"]}


@pytest.mark.parametrize(
    "config, left",
    [
        ({"Env": ["container=podman", "A=b", "HOME=/", f"HOSTNAME={SHORT_ID}"]}, ["A=b"]),
        ({"Env": ["HOME=/root", "TERM=xterm", "HOSTNAME=other"]}, ["TERM=xterm", "HOSTNAME=other"]),
        ({"Env": ["TERM=xterm"], "Tty": True}, []),
        ({"Env": ["HOME=/home/me"], "User": "me:1000"}, []),
        ({"Env": ["HOME=/srv"], "User": "me"}, ["HOME=/srv"]),
        ({"Env": None}, []),
    ],
)
def test_variables_that_podman_sets_are_nobodys_wish(config: Json, left: list[str]):
    """Kept, the new container would be told the name of the old one, and the home of another image's user."""
    assert read(container(config=config))["Config"]["Env"] == left


def test_in_the_network_of_another_the_name_is_the_others():
    """It has no networks of its own, though they are shown."""
    made = container(config={"Env": ["HOSTNAME=parent", "A=b"]}, host={"NetworkMode": "container:parent"})
    found = read(made)
    assert found["Config"]["Env"] == ["A=b"]
    assert found["NetworkSettings"]["Networks"] == {}


@pytest.mark.parametrize(
    "of_container, of_image, kept",
    [
        ("15", None, False),
        ("2", "SIGINT", False),
        ("37", "SIGRTMIN+3", False),
        ("3", "SIGINT", True),
        ("64", "64", False),
    ],
)
def test_the_stop_signal_of_the_image_is_not_taken_for_ones_own(of_container: str, of_image: str | None, kept: bool):
    """A container shows a number where its image has a name, and one where it has none."""
    old = podman.image_of(image(StopSignal=of_image), {})
    made = read(container(config={"StopSignal": of_container}))
    request = create_request(made, old_image=old, new_image=old, image="app:1", api=(1, 41))
    assert ("StopSignal" in request.body) == kept


def test_what_an_image_does_not_say_is_what_its_containers_show():
    """Working folder, path, signal, and what a health check does not say, which only the native API shows."""
    found = podman.image_of(image(Env=["A=b"]), {"Healthcheck": {"Test": ["CMD", "x"], "Retries": 9, "Interval": 0}})
    assert found["Config"]["WorkingDir"] == "/"
    assert found["Config"]["StopSignal"] == "15"
    assert found["Config"]["Env"] == ["A=b", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    assert found["Config"]["Healthcheck"] == {
        "Test": ["CMD", "x"],
        "Interval": 30 * SECOND,
        "Timeout": 30 * SECOND,
        "Retries": 9,
    }
    said = podman.image_of(image(Env=["PATH=/bin"], WorkingDir="/w"), {})
    assert (said["Config"]["Env"], said["Config"]["WorkingDir"]) == (["PATH=/bin"], "/w")
    assert "Healthcheck" not in said["Config"]


def test_an_image_is_known_by_its_digest_after_its_tag_has_moved():
    """Its history says which repositories knew it, and its own digest is one of those that they knew it by."""
    names = ["r.example:5000/me/app:1", "r.example:5000/me/app@sha256:3", "app"]
    found = podman.image_of(image(RepoDigests=None), {"Digest": "sha256:1", "NamesHistory": names})
    assert found["RepoDigests"] == ["app@sha256:1", "r.example:5000/me/app@sha256:1"]
    shown = image() | {"RepoDigests": ["app@sha256:2"]}
    assert podman.image_of(shown, {})["RepoDigests"] == ["app@sha256:2"]
    assert podman.image_of(shown, {"Digest": "sha256:1"})["RepoDigests"] == ["app@sha256:2"]


def test_a_health_check_of_ones_own_is_kept_whole():
    """Podman does not merge the image's into it, as Docker does; one that is the image's is left out."""
    old = podman.image_of(image(), {"Healthcheck": CHECK})
    for own in (CHECK | {"Retries": 3}, CHECK | {"Retries": 5}):
        made = read(container(config={"Healthcheck": own}))
        request = create_request(made, old_image=old, new_image=image(), image="app:1", api=(1, 41))
        assert request.body["Healthcheck"] == (own if own["Retries"] == 5 else None)


def test_what_would_be_refused_is_written_otherwise():
    """Limits have a prefix that is not taken, devices no permissions, and the runtime a name that is none."""
    host = {
        "Annotations": {"io.container.manager": "libpod", "org.systemd.property.KillSignal": "15", "mine": "yes"},
        "Runtime": "oci",
        "MemorySwappiness": 0,
        "Ulimits": [{"Name": "RLIMIT_NOFILE", "Soft": 1, "Hard": 2}],
        "Devices": [{"PathOnHost": "/dev/null", "CgroupPermissions": ""}],
        "LogConfig": {"Type": "json-file", "Config": None},
        "Binds": ["a" * 64 + ":/anonymous:rw", "named:/named:rw"],
    }
    found = read(container(host=host), native(host={"LogConfig": {"Size": "1MB"}}))["HostConfig"]
    assert found["Annotations"] == {"mine": "yes"}
    assert found["Runtime"] == "crun"
    assert found["MemorySwappiness"] == -1
    assert found["Ulimits"] == [{"Name": "nofile", "Soft": 1, "Hard": 2}]
    assert found["Devices"] == [{"PathOnHost": "/dev/null", "CgroupPermissions": "rwm"}]
    assert found["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1MB"}}
    assert found["Binds"] == ["named:/named:rw"]  # the other one goes over as what it is


def test_beside_the_volumes_of_another_anonymous_ones_are_named():
    """Which of them are the other one's is not shown; taken by its name each is the same one."""
    bind = "a" * 64 + ":/anonymous:rw"
    assert read(container(host={"Binds": [bind], "VolumesFrom": ["db"]}))["HostConfig"]["Binds"] == [bind]


@pytest.mark.parametrize(
    "nano, period, quota, left",
    [
        (500_000_000, 100_000, 50_000, (500_000_000, 0, 0)),
        (400_000_000, 50_000, 20_000, (0, 50_000, 20_000)),
        (0, 50_000, 0, (0, 50_000, 0)),
    ],
)
def test_processor_time_is_said_once(nano: int, period: int, quota: int, left: tuple[int, int, int]):
    """Both ways to say it are shown, and together they are refused."""
    found = read(container(host={"NanoCpus": nano, "CpuPeriod": period, "CpuQuota": quota}))["HostConfig"]
    assert (found["NanoCpus"], found["CpuPeriod"], found["CpuQuota"]) == left


@pytest.mark.parametrize(
    "address, prefix, asked",
    [
        ("192.168.7.7", 24, {"IPv4Address": "192.168.7.7"}),
        ("10.7.0.7", 16, {"IPv4Address": "10.7.0.7"}),
        ("10.89.3.7", 24, None),
        ("10.200.0.7", 24, None),
        ("", 0, None),
    ],
)
def test_an_address_is_kept_where_somebody_chose_the_subnet(address: str, prefix: int, asked: Json | None):
    """In Podman's own pools it is one that Podman chose; which of the others was asked for, it does not tell."""
    shown = endpoint(IPAddress=address, IPPrefixLen=prefix, Aliases=["al", SHORT_ID, "host1"])
    found = read(container(config={"Hostname": "host1"}, networks={"n": shown}))["NetworkSettings"]["Networks"]["n"]
    assert found["IPAMConfig"] == asked
    assert found["Aliases"] == ["al"]
    assert read(container(networks={"none": None}))["NetworkSettings"]["Networks"]["none"]["Aliases"] == []


def test_the_entry_of_its_user_is_not_the_containers_own_writing():
    """Podman writes a container's user into two files of its layer; what else was changed there is left."""
    found = [{"Path": path, "Kind": 0} for path in ("/etc", "/etc/passwd", "/etc/group", "/etc/hosts.allow")]
    assert [change["Path"] for change in podman.changes(found)] == ["/etc", "/etc/hosts.allow"]
    assert podman.changes(found[:3]) == []


def test_an_address_that_is_not_kept_is_said():
    """But on the default network, where hardly anybody asks for one; and of Docker nothing is said."""
    in_pool = {"IPAddress": "10.89.0.7", "IPPrefixLen": 24}
    four, none = {"GlobalIPv6Address": ""}, {"IPAddress": "", "GlobalIPv6Address": ""}
    networks = {
        "podman": endpoint(**in_pool),
        "host": endpoint(**none),
        "pasta": endpoint(**none),
        "shop": endpoint(**in_pool, **four),
        "kept": endpoint(IPAddress="192.168.7.7", **four),
        "six": endpoint(IPAddress="192.168.7.8"),
        "down": endpoint(**none),
    }
    made = container(networks=networks)
    shop, six, down = podman.notes(read(made))
    assert shop.startswith("its address 10.89.0.7 on shop ")
    assert six.startswith("its address fd00::7 on six ")
    assert down.startswith("the address that it has while it runs on down ")
    assert list(podman.notes(made)) == []


@pytest.mark.parametrize(
    "policy, exit_code, restarts, status",
    [
        ({"Name": "always"}, 0, 0, "restarting"),
        ({"Name": "unless-stopped"}, 1, 5, "restarting"),
        ({"Name": "on-failure", "MaximumRetryCount": 2}, 1, 1, "restarting"),
        ({"Name": "on-failure", "MaximumRetryCount": 2}, 1, 2, "exited"),
        ({"Name": "on-failure"}, 1, 9, "restarting"),
        ({"Name": "on-failure"}, 0, 0, "exited"),
        ({"Name": "no"}, 1, 0, "exited"),
        (None, 1, 0, "exited"),
    ],
)
def test_between_an_end_and_a_restart_it_is_not_stopped(
    policy: Json | None, exit_code: int, restarts: int, status: str
):
    """For a moment Podman shows it so; taken for what a person did, a crashing version would never be rolled back."""
    state = {"Status": "stopped", "ExitCode": exit_code}
    made = container(host={"RestartPolicy": policy}, State=state, RestartCount=restarts)
    assert read(made)["State"]["Status"] == status


@pytest.mark.parametrize("status, known", [("initialized", "created"), ("stopping", "running"), ("paused", "paused")])
def test_other_states_have_dockers_words(status: str, known: str):
    """What Docker has no word for is what it would show at that moment."""
    assert read(container(State={"Status": status}))["State"]["Status"] == known


@pytest.mark.parametrize(
    "own, reason",
    [
        ({"Pod": "abc"}, "in the pod abc"),
        ({"Rootfs": "/srv"}, "a folder"),
        ({"config": {"Secrets": [{"Name": "s"}]}}, "secrets of Podman (s)"),
        ({"config": {"HealthcheckOnFailureAction": "kill"}}, "--health-on-failure=kill"),
        ({"config": {"StartupHealthCheck": {"Test": ["x"]}}}, "for its start"),
        ({"config": {"Timeout": 9}}, "--timeout=9"),
        ({"host": {"IDMappings": {"UidMap": ["0:1:1"]}}}, "user namespace"),
        ({"config": {"CreateCommand": ["podman", "run", "--ip", "10.0.0.7", "--sysctl=a=b", "app"]}}, "--ip, --sysctl"),
        (
            {"config": {"CreateCommand": ["podman", "run", "--network", "n:ip=10.0.0.7", "app"]}},
            "options of --network",
        ),
        ({"config": {"CreateCommand": ["podman", "run", "--net=n:alias=a,mac=02:00", "app"]}}, "options of --net"),
        ({"config": {"CreateCommand": ["podman", "run", "--network=pasta:-t,80", "app"]}}, "options of --network"),
        ({"config": {"CreateCommand": ["podman", "run", "--device=/dev/a:/dev/b:r", "app"]}}, "--device"),
    ],
)
def test_what_only_podman_itself_can_give_is_named(own: Json, reason: str):
    """A container that the Docker-compatible API cannot make again is held, and the reason says why."""
    [found] = podman.unsupported(read(container(), native(**own)))
    assert reason in found


def test_a_container_of_systemd_is_left_to_it():
    """Stopped, it would be started again by its unit beside the new one."""
    [found] = podman.unsupported(read(container(config={"Labels": {"PODMAN_SYSTEMD_UNIT": "web.service"}})))
    assert "web.service" in found


def test_an_ordinary_container_is_not_refused():
    """Neither Docker's nor Podman's, whichever command made it."""
    networks = ["--network", "n:alias=a", "--net", "host", "--network=container:db", "--network=ns:/run/netns/x"]
    command = ["podman", "run", *networks, "--device", "/dev/a:/dev/b", "app"]
    own = {"CreateCommand": command, "HealthcheckOnFailureAction": "none", "Timeout": 0}
    assert list(podman.unsupported(read(container(), native(config=own)))) == []
    assert list(podman.unsupported(container(config={"Labels": None}))) == []


def test_what_depends_on_a_container_is_named():
    """Podman does not remove one that another was made to require."""
    needy = read(container(), native(Dependencies=[CONTAINER_ID]))
    sharing = read(container(host={"VolumesFrom": ["web"]}) | {"Id": "c" * 64, "Name": "/user"})
    others = [needy | {"Id": "d" * 64, "Name": "/needy"}, sharing, read(container()) | {"Id": "e" * 64, "Name": "/db"}]
    assert podman.holders(container(), others) == ["needy", "user"]


def test_what_removes_itself_was_not_tried_with_podman():
    """It is held; with Docker it is updated."""
    removing = container(host={"AutoRemove": True})
    assert list(podman.unsupported(removing)) == []
    [found] = podman.unsupported(read(removing, native(Pod="")))
    assert found == "it was made with --rm, which was not tried with Podman"


@pytest.mark.parametrize(
    "seconds, config, state, held",
    [
        (6.1, {"Healthcheck": CHECK}, {}, True),
        (5.9, {"Healthcheck": CHECK}, {}, False),
        (99, {"Healthcheck": CHECK}, {"Health": {"Log": [{"ExitCode": 0}]}}, False),
        (99, {"Healthcheck": CHECK}, {"Status": "exited"}, False),
        (99, {"Healthcheck": CHECK}, {"StartedAt": ""}, False),
        (99, {"Healthcheck": {"Test": ["NONE"], "Interval": 1}}, {}, False),
        (99, {"Healthcheck": CHECK | {"Interval": 0}}, {}, False),
        (99, {}, {}, False),
    ],
)
def test_a_check_that_never_ran_holds(seconds: float, config: Json, state: Json, held: bool):
    """Once it was due and there is no result, nobody runs it, and a new container could not become healthy."""
    whole = {"Status": "running", "StartedAt": STARTED, "Health": {"Status": "starting", "Log": None}} | state
    reason = podman.unwatched(read(container(config=config, State=whole)), now=STARTED_SECONDS + seconds)
    assert (reason is not None) == held


def test_docker_runs_its_checks_itself():
    """There a first result may take its time."""
    made = container(config={"Healthcheck": CHECK}, State={"Status": "running", "StartedAt": STARTED})
    assert podman.unwatched(made, now=STARTED_SECONDS + 99) is None


def test_an_image_that_was_built_here_is_held():
    """`localhost/` is no registry there; a registry on this machine has a port, and a reason of its own stays."""
    local, other, refused = (
        Target(
            id=f"docker:{name}",
            kind=Kind.DOCKER,
            ref=ImageRef.parse(ref),
            policy=Policy(enable=True),
            service=f"docker:{name}",
            refusal=refusal,
        )
        for name, ref, refusal in (
            ("local", "localhost/app:1", None),
            ("other", "localhost:5000/app:1", None),
            ("refused", "localhost/app:2", "a label"),
        )
    )
    held, *rest = podman.hold_local([local, other, refused])
    assert "localhost/app:1 was built on this machine" in str(held.refusal)
    assert rest == [other, refused]
