"""Networks, addresses, names and ports stay as they were asked for; what the engine chose is chosen anew."""

from __future__ import annotations

import asyncio
import subprocess
from unittest.mock import ANY

import pytest

from tests.integration.engines import OF_ANY_STORE
from tests.integration.fidelity.cases import (
    Case,
    addresses,
    is_old,
    made,
    published,
    served,
    updated,
)
from tests.integration.line import Json, Line
from tests.integration.versions import app

# Time decides nothing here: on a busy machine an update takes as long as it takes.
pytestmark = [pytest.mark.timeout(900), OF_ANY_STORE]


@pytest.mark.fidelity(12, 42)
@pytest.mark.usefixtures("networks")
async def test_static_addresses_stay(line: Line) -> None:
    """Addresses that a user chose, of each kind and on each network, are configured and held; no other is chosen."""
    cases = {
        "web": made(
            "--network two --ip 10.92.0.9 --ip6 fd00:92::9 --link-local-ip 169.254.9.9",
            joins=(("--ip", "10.91.0.9", "one"), ("three",)),
        )
    }
    (_, after), *_ = (await updated(line, cases)).values()
    assert addresses(after, "two") == ("10.92.0.9", "fd00:92::9")
    assert addresses(after, "one") == ("10.91.0.9", "")
    assert not after["NetworkSettings"]["Networks"]["three"]["IPAMConfig"]
    for host in ("10.92.0.9", "10.91.0.9", "[fd00:92::9]", "web"):
        assert await served(line, host) == "2"
    inside = await line.docker("exec", "web", "busybox", "ip", "-o", "addr")
    assert all(address in inside for address in ("10.92.0.9/", "10.91.0.9/", "fd00:92::9/", "169.254.9.9/"))


@pytest.mark.fidelity(13)
@pytest.mark.usefixtures("networks")
async def test_an_endpoint_is_free_again_for_each_update(line: Line) -> None:
    """A static address and a published port go from the old one to the new one, and on to the next."""
    await made("--network one --ip 10.91.0.9 --publish 127.0.0.1:18099:8080").make(line, "web")
    for version in ("2", "3"):
        line.push(app(version))
        await line.update("web")
        assert await served(line, "10.91.0.9") == version
        assert await published(line, 18099) == version


@pytest.mark.fidelity(15, 42)
@pytest.mark.usefixtures("networks")
async def test_aliases_stay_and_the_old_id_is_none(line: Line) -> None:
    """Names that a user gave are answered to on each network; the id of the old container is no name of the new one."""
    cases = {
        "web": made(
            "--network one --network-alias here --network-alias there", joins=(("--alias", "elsewhere", "two"),)
        ),
        "bare": made("--network bridge"),
    }
    inspects = await updated(line, cases)
    for name in ("here", "there", "elsewhere", "web"):
        assert await served(line, name) == "2"
    before, after = inspects["web"]
    shown = [name for each in after["NetworkSettings"]["Networks"].values() for name in each["Aliases"] or []]
    assert before["Id"][:12] not in shown
    assert not inspects["bare"][1]["NetworkSettings"]["Networks"]["bridge"]["Aliases"]


@pytest.mark.fidelity(16, 42)
@pytest.mark.usefixtures("networks")
async def test_all_networks_stay_with_their_options(line: Line) -> None:
    """The first network stays the first, those joined by hand are joined, each with its options and its links."""
    cases = {
        "web": made(
            "--network name=two,driver-opt=some.option=first",
            joins=(
                ("--driver-opt", "some.option=second", "--link", "peer:friend", "one"),
                ("--alias", "third", "three"),
            ),
        ),
        "by-id": made(f"--network {await line.docker('network', 'inspect', '--format={{.Id}}', 'one')} --ip 10.91.0.7"),
        "bridge": made(joins=(("one",),)),
        "none": made("--network none"),
        "off": Case(body={"NetworkDisabled": True}),
    }
    (_, after), *_ = (await updated(line, cases)).values()
    assert sorted(after["NetworkSettings"]["Networks"]) == ["one", "three", "two"]
    found = await line.docker("exec", "web", "wget", "-q", "-O", "-", "http://friend:8080/")
    assert found == "1"


@pytest.mark.fidelity(20)
async def test_legacy_links_stay(line: Line) -> None:
    """A link of the default network still leads to where it led, under the name that it had."""
    await line.docker("run", "--detach", "--name=db", line.store.reference("app:1"))
    await updated(line, {"web": made("--link db:store")})
    assert await line.docker("exec", "web", "wget", "-q", "-O", "-", "http://store:8080/") == "1"


@pytest.mark.fidelity(14)
@pytest.mark.usefixtures("networks")
async def test_a_mac_address_stays_only_if_a_user_chose_it(line: Line) -> None:
    """A MAC address that was asked for is kept, on each network; a generated one is not made one that was asked for."""
    chosen = "02:42:0a:5b:00:77"
    cases = {
        "chosen": Case(body={"MacAddress": chosen}) if is_old(line) else made(f"--mac-address {chosen}"),
        "generated": made(joins=(("one",),)),
    }
    if not is_old(line):  # which knows one address a container
        second = "--network name=two,mac-address=00:16:3e:00:00:02"
        cases["further"] = made(f"--network name=one,mac-address=00:16:3e:00:00:01 {second}")
    inspects = {name: after for name, (_, after) in (await updated(line, cases)).items()}
    assert mac_addresses(inspects["chosen"]) == [chosen]
    assert not inspects["generated"]["Config"].get("MacAddress")
    assert all(address.startswith("02:42:") for address in mac_addresses(inspects["generated"]))
    if "further" in inspects:
        assert mac_addresses(inspects["further"]) == ["00:16:3e:00:00:01", "00:16:3e:00:00:02"]


def mac_addresses(container: Json) -> list[str]:
    return sorted(endpoint["MacAddress"] for endpoint in container["NetworkSettings"]["Networks"].values())


@pytest.mark.fidelity(19)
async def test_a_hostname_stays_only_if_a_user_chose_it(line: Line) -> None:
    """A chosen hostname stays, on the host's network too; the old container's id and the host's name are not kept."""
    on_host = {
        "keeps": "Cmd Healthcheck.Test StopSignal",
        "changes": {"Args": (["1", "sleep", "999"], ["2", "sleep", "999"])},
    }
    options, command = "--network host --no-healthcheck --stop-signal KILL", "sleep 999"
    cases = {
        "generated": made(),
        "chosen": made("--hostname mine --domainname example.org"),
        "hosts": made(options, command, **on_host),
        "own": made(f"{options} --hostname mine", command, **on_host),
        "uts": made("--uts host"),
    }
    inspects = {name: after for name, (_, after) in (await updated(line, cases)).items()}
    assert inspects["generated"]["Config"]["Hostname"] == inspects["generated"]["Id"][:12]
    inside = {name: await line.docker("exec", name, "busybox", "hostname") for name in cases}
    assert (inside["chosen"], inside["own"]) == ("mine", "mine")
    assert inside["hosts"] == inside["uts"] == line.real.machine.name


@pytest.mark.fidelity(29)
async def test_a_random_port_stays_random_and_the_log_says_so(line: Line) -> None:
    """A port that the engine chose is chosen anew, published all the same, and the log names the one that is gone."""
    ports = frozenset({"NetworkSettings.Ports.8080/tcp"})
    gone = {"NetworkSettings.Ports.8101/udp": (ANY, None), "NetworkSettings.Ports.8102/udp": (None, ANY)}
    cases = {
        "one": made("--publish 8080", may_change=ports),
        "all": made("--publish-all", may_change=ports, changes=gone),
        "range": made("--publish 18000-18009:8080", may_change=ports),
    }
    inspects = await updated(line, cases)
    for name, (before, after) in inspects.items():
        old, new = (each["NetworkSettings"]["Ports"]["8080/tcp"][0]["HostPort"] for each in (before, after))
        assert f"8080/tcp was published on port {old}, which the engine chose; it chooses anew" in line.noted(name)
        assert await published(line, int(new)) == "2"


@pytest.mark.fidelity(43)
async def test_networks_of_other_drivers_stay(line: Line) -> None:
    """A static address on a macvlan network and one on a Swarm's attachable network are kept as on a bridge."""
    await asyncio.to_thread(add_interface, line, "outside")
    await line.docker("network", "create", "--driver=macvlan", "--opt=parent=outside", "--subnet=10.99.0.0/24", "lan")
    await line.docker("swarm", "init", "--advertise-addr=127.0.0.1")
    await line.docker("network", "create", "--driver=overlay", "--attachable", "--subnet=10.95.0.0/24", "swarms")
    cases = {
        "lan": made("--network lan --ip 10.99.0.9 --network-alias here"),
        "swarms": made("--network swarms --ip 10.95.0.9 --network-alias there"),
    }
    inspects = await updated(line, cases)
    assert addresses(inspects["lan"][1], "lan") == ("10.99.0.9", "")
    assert addresses(inspects["swarms"][1], "swarms") == ("10.95.0.9", "")
    for name in cases:
        line.push(app("3"))
        await line.update(name)
    await line.docker("rm", "--force", *(name + suffix for name in cases for suffix in ("", "-anew")))


def add_interface(line: Line, name: str) -> None:
    """Give the engine's machine a network interface of its own, to make a network upon."""
    first = line.real.machine.first
    assert first is not None
    inside = ["nsenter", f"--target={first.pid}", "--net", "--"]
    subprocess.run([*inside, "ip", "link", "delete", name], check=False, capture_output=True)
    subprocess.run([*inside, "ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-peer"], check=True)
    subprocess.run([*inside, "ip", "link", "set", name, "up"], check=True)
