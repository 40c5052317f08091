"""A connection to a checked address still proves that it is the host of the URL."""

import asyncio
import datetime
import ipaddress
import ssl

import pytest

from mem1.tools.web import FetchTool

pytest.importorskip("cryptography", reason="cryptography makes the test's certificates")
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@pytest.fixture
def secure(web, tmp_path, monkeypatch):
    """A server with a certificate for site.example, which this process trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    names = [x509.DNSName("site.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.9"))]
    start = datetime.datetime(2020, 1, 1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start.replace(year=2100))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pair = tmp_path / "pair.pem"
    pair.write_bytes(pem + key.private_bytes(serialization.Encoding.PEM, *form))
    (tmp_path / "ca.pem").write_bytes(pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    server = web.serve(body=b"<p>private talk</p>")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


def read(web, server, host: str) -> str:
    hosts = {"site.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]}
    tool = FetchTool(guard=web.guard(server, hosts=hosts))
    return asyncio.run(tool.call(f"https://{host}:{server.server_port}/"))


def test_the_certificate_must_be_the_hosts_not_the_addresss(web, secure):
    assert "private talk" in read(web, secure, "site.example")
    for host in ("other.example", "127.0.0.1"):
        assert "the connection failed (ConnectError)" in read(web, secure, host)
