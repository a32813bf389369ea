"""TLS and plain HTTP: who is believed, who may go without, and what is followed where."""

import shutil
import socket

import pytest

from sidecar.core.image import ImageRef
from sidecar.errors import Refused, Transient
from sidecar.oci.trust import Trust
from tests.oci.internet import Authority, RegistryHost, TokenHost, image, says
from tests.oci.stage import Stage, staged

REF = ImageRef.parse("ghcr.io/acme/app:1")


@pytest.fixture
def everywhere(stage: Stage) -> RegistryHost:
    """One registry under every name that a test uses."""
    registry = stage.host("ghcr.io")
    registry.put("acme/app:1", image())
    stage.net.hosts["other.example"] = registry
    return registry


@pytest.mark.parametrize(
    "host, listed, expected",
    [
        ("localhost", (), True),
        ("localhost:5000", (), True),
        ("127.0.0.1:5000", (), True),
        ("127.8.9.10", (), True),
        ("[::1]:5000", (), True),
        ("[::1]", (), True),
        ("128.0.0.1:5000", (), False),
        ("10.0.0.1:5000", (), False),
        ("[fe80::1]:5000", (), False),
        ("localhost.example", (), False),
        ("127.0.0.1.example", (), False),
        ("ghcr.io", (), False),
        ("nas:5000", ("nas",), True),
        ("nas:5000", ("NAS:5000",), True),
        ("nas:5001", ("nas:5000",), False),
        ("nas", ("nas:5000",), False),
        ("nas.example", ("nas",), False),
        ("[fe80::1]:5000", ("[fe80::1]:5000",), True),
        ("[fe80::1]:5000", ("fe80::1",), True),
    ],
)
def test_loopback_and_listed_hosts_are_insecure(host, listed, expected):
    """A host is listed with its port or for every port; a name that only looks like loopback is none."""
    trust = Trust(insecure=frozenset(listed), ca_file=None, certs_folder=None)
    assert trust.is_insecure(host) is expected


async def test_a_certificate_that_nobody_vouches_for_is_not_taken(stage, everywhere, tmp_path):
    """Without the authority there is no connection, and no way around it."""
    with pytest.raises(Transient, match=r"ghcr\.io has a certificate that is not trusted: unable to get local issuer"):
        await stage.registry(certs_folder=tmp_path).resolve(REF)
    assert not stage.net.asked


async def test_a_certificate_for_another_name_is_not_taken(stage, everywhere):
    """The authority vouches for names, not for whoever shows its certificate."""
    with pytest.raises(Transient, match=r"quay\.io has a certificate that is not trusted: Hostname mismatch"):
        await stage.registry().resolve(ImageRef.parse("quay.io/acme/app:1"))


async def test_an_authority_can_be_added_for_one_host(stage, everywhere, authority: Authority, tmp_path):
    """Docker's certs.d holds for the host it is named after, and for no other."""
    (tmp_path / "ghcr.io").mkdir()
    shutil.copy(authority.certificate, tmp_path / "ghcr.io/ca.crt")
    client = stage.registry(certs_folder=tmp_path)
    assert (await client.resolve(REF)).digest
    with pytest.raises(Transient, match=r"other\.example has a certificate that is not trusted"):
        await client.resolve(ImageRef.parse("other.example/acme/app:1"))


async def test_a_renewed_certificate_is_read_after_a_failure(stage, everywhere, authority: Authority, tmp_path):
    """TLS that failed for want of a file works once it is there, without a restart."""
    client = stage.registry(certs_folder=tmp_path)
    with pytest.raises(Transient):
        await client.resolve(REF)
    (tmp_path / "ghcr.io").mkdir()
    with pytest.raises(Transient):
        await client.resolve(REF)
    shutil.copy(authority.certificate, tmp_path / "ghcr.io/ca.crt")
    assert (await client.resolve(REF)).digest


async def test_our_own_certificate_is_shown_where_there_is_one(authority: Authority, tmp_path, monkeypatch):
    """A registry that wants one is shown certs.d's client certificate; without it there is no connection."""
    authority.replace_the_systems(monkeypatch)
    folder = tmp_path / "ghcr.io"
    folder.mkdir()
    shutil.copy(authority.certificate, folder / "ca.crt")
    async with staged(authority, wants_client=True) as stage:
        stage.host("ghcr.io").put("acme/app:1", image())
        with pytest.raises(Transient, match=r"resolving ghcr\.io/acme/app:1: .*ghcr\.io"):
            await stage.registry(certs_folder=tmp_path).resolve(REF)
        assert not stage.net.asked
        shutil.copy(authority.client("pem"), folder / "client.cert")
        shutil.copy(authority.client("key"), folder / "client.key")
        assert (await stage.registry(certs_folder=tmp_path).resolve(REF)).digest


@pytest.mark.parametrize(
    "name, match",
    [("ca.crt", "reading the certificate authorities in '.*ca.crt'"), ("client.cert", "reading our .*client.key'")],
)
async def test_a_certificate_file_that_cannot_be_read_is_named(stage, everywhere, tmp_path, name, match):
    """Nothing is sent before every file for the host is read, and the message says which one is wrong."""
    (tmp_path / "ghcr.io").mkdir()
    (tmp_path / "ghcr.io" / name).write_text("no certificate")
    with pytest.raises(Refused, match=match):
        await stage.registry(certs_folder=tmp_path).resolve(REF)
    assert not stage.net.asked


def test_a_host_of_dots_has_no_folder(tmp_path):
    """A name out of a redirect cannot lead to files outside of a host's folder."""
    (tmp_path / "broken.crt").write_text("no certificate")
    (tmp_path / "hosts").mkdir()
    trust = Trust(insecure=frozenset(), ca_file=None, certs_folder=tmp_path / "hosts")
    assert trust.context("..")


async def test_a_loopback_registry_is_asked_in_plain_http(stage):
    """TLS is tried first; what answers is remembered."""
    async with stage.net.server() as port:
        registry = stage.host(f"127.0.0.1:{port}")
        digest = registry.put("app:1", image())
        client = stage.registry()
        ref = ImageRef.parse(f"127.0.0.1:{port}/app:1")
        assert [(await client.resolve(ref)).digest for _ in range(2)] == [digest, digest]
        assert stage.net.lines == [f"HEAD http://127.0.0.1:{port}/v2/app/manifests/1"] * 2


async def test_a_listed_registry_is_asked_with_tls_where_it_has_it(stage, everywhere, tmp_path):
    """An insecure host's certificate need not be vouched for, as with Docker."""
    client = stage.registry(insecure=frozenset({"ghcr.io"}), certs_folder=tmp_path)
    assert (await client.resolve(REF)).digest
    assert stage.net.lines == ["HEAD https://ghcr.io/v2/acme/app/manifests/1"]


async def test_a_listed_registry_without_tls_is_asked_in_plain_http(stage, everywhere):
    """Where nothing listens for TLS, port 80 is tried; a listed port counts for that port only."""
    stage.net.ports[443] = unused_port()
    assert (await stage.registry(insecure=frozenset({"ghcr.io"})).resolve(REF)).digest
    assert stage.net.lines == ["HEAD http://ghcr.io/v2/acme/app/manifests/1"]
    with pytest.raises(Transient, match=r"no connection to ghcr\.io"):
        await stage.registry(insecure=frozenset({"ghcr.io:5000"})).resolve(REF)


async def test_plain_http_is_forgotten_when_it_stops_working(stage, everywhere):
    """A registry that gets TLS later is found there, after one failure."""
    tls, stage.net.ports[443] = stage.net.ports[443], unused_port()
    everywhere.headers = {"Connection": "close"}
    client = stage.registry(insecure=frozenset({"ghcr.io"}))
    await client.resolve(REF)
    stage.net.ports.update({443: tls, 80: unused_port()})
    with pytest.raises(Transient, match=r"no connection to ghcr\.io"):
        await client.resolve(REF)
    assert (await client.resolve(REF)).digest
    assert stage.net.lines[-1].startswith("HEAD https://")


async def test_plain_http_to_a_tls_port_is_not_remembered(stage, everywhere):
    """A server that says 400 to plain HTTP speaks TLS: the next question tries that again."""
    everywhere.instead = [says(400), says(400)]
    tls, stage.net.ports[443] = stage.net.ports[443], unused_port()
    client = stage.registry(insecure=frozenset({"ghcr.io"}))
    with pytest.raises(Transient, match="answered 400"):
        await client.resolve(REF)
    stage.net.ports[443] = tls
    assert (await client.resolve(REF)).digest
    assert stage.net.lines[-1].startswith("HEAD https://")


async def test_a_registry_with_neither_is_down(stage):
    """Both ways failed, and the message is that of the last."""
    stage.net.ports.update({443: unused_port(), 80: unused_port()})
    with pytest.raises(
        Transient, match=r"resolving ghcr\.io/acme/app:1: no connection to ghcr\.io: Connection refused"
    ):
        await stage.registry(insecure=frozenset({"ghcr.io"})).resolve(REF)


async def test_only_insecure_hosts_lose_tls(stage, everywhere):
    """A host that is not listed is never asked in plain HTTP, whatever happens to its TLS."""
    stage.net.ports[443] = unused_port()
    with pytest.raises(Transient, match=r"no connection to ghcr\.io"):
        await stage.registry().resolve(REF)
    stage.net.ports[443] = stage.net.ports[80]
    with pytest.raises(Transient, match=r"ghcr\.io does not speak TLS; .* name it in SIDECAR_INSECURE_REGISTRIES"):
        await stage.registry().resolve(REF)
    assert not stage.net.asked


async def test_a_plain_registry_may_have_a_plain_token_server_beside_it(stage):
    """On the same host, another port included, credentials go where the registry itself would see them in plain."""
    async with stage.net.server() as port, stage.net.server() as token_port:
        registry = stage.host(f"127.0.0.1:{port}")
        registry.challenge = f'Bearer realm="http://127.0.0.1:{token_port}/auth"'
        digest = registry.put("app:1", image())
        stage.net.hosts[f"127.0.0.1:{token_port}"] = TokenHost(registry, logins={stage.know("any").basic()})
        stage.know(f"127.0.0.1:{port}")
        assert (await stage.registry().resolve(ImageRef.parse(f"127.0.0.1:{port}/app:1"))).digest == digest


@pytest.mark.parametrize("has_credentials", [True, False])
async def test_credentials_never_go_in_plain_http_to_another_host(stage, everywhere, has_credentials):
    """A plain realm elsewhere is asked for an anonymous token at most, and only where it is insecure by rule itself."""
    stage.net.ports[443] = unused_port()
    everywhere.challenge = 'Bearer realm="http://other.example/auth"'
    stage.net.hosts["other.example"] = TokenHost(everywhere)
    client = stage.registry(insecure=frozenset({"ghcr.io", "other.example"}))
    if not has_credentials:
        assert (await client.resolve(REF)).digest
        with pytest.raises(Refused, match=r"other\.example would be asked in plain HTTP"):
            await stage.registry(insecure=frozenset({"ghcr.io"})).resolve(REF)
        return
    stage.know("ghcr.io")
    with pytest.raises(Refused, match=r"names the token server other\.example in plain HTTP; nothing is sent there"):
        await client.resolve(REF)
    assert not stage.net.of("other.example")


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def test_a_tls_handshake_that_hangs_is_bounded(stage):
    """A host that takes connections and says nothing is given up on in time."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stage.net.ports[443] = server.getsockname()[1]
        with pytest.raises(Transient, match=r"ghcr\.io took no connection within 0\.05 seconds"):
            await stage.registry(connect_seconds=0.05).resolve(REF)
