"""The server as a process: its address, TLS, and what it says about itself."""

import datetime
import ipaddress
import json
import logging
import re
import socket
import ssl
import urllib.request
from pathlib import Path

import pytest
from studio_server import SECONDS, studio_server

from visionloop.bin.studio import command as commands
from visionloop.bin.web.config import StudioConfig
from visionloop.bin.web.serve import LineFormatter, link_host, link_of, require_safe_address
from visionloop.engine.errors import UserError

__all__ = ["commands"]  # of the fixture `command`


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    with studio_server(tmp_path_factory.mktemp("studio")) as server:
        yield server


def address_of(url):
    host, port = re.fullmatch(r"https?://(.*):(\d+)", url).groups()
    return host, int(port)


def answer_to(address, request):
    """The bytes that a server answers to bytes."""
    with socket.create_connection(address, timeout=SECONDS) as connection:
        connection.sendall(request)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_the_default_address_is_the_loopback_alone(studio):
    host, port = address_of(studio.url)
    assert host == "127.0.0.1"
    listening = [
        line.split()[1]
        for name in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(name).read_text().splitlines()
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
    ]
    assert listening == [f"0100007F:{port:04X}"]


def test_the_link_has_the_token_in_its_fragment_alone(studio):
    (line,) = [line for line in studio.output if studio.token in line]
    before, after = line.split("#")
    assert after.strip() == f"token={studio.token}" and studio.token not in before
    assert "?" not in line


def test_the_token_of_a_server_is_a_private_file_and_nothing_else_holds_it(studio):
    path = studio.state / "token"
    assert path.read_text().strip() == studio.token
    assert path.stat().st_mode & 0o777 == 0o600 and studio.state.stat().st_mode & 0o777 == 0o700
    for file in studio.state.rglob("*"):
        assert file == path or not file.is_file() or studio.token.encode() not in file.read_bytes()


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET / HTTP/1.1",
        b"GET /none/x HTTP/1.1",
        b"GET /api/v1/session HTTP/1.1",
        b"HEAD / HTTP/1.1",
    ],
)
def test_answers_do_not_name_the_server_or_its_version(studio, request_line):
    head = request_line + b"\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    answer = answer_to(address_of(studio.url), head).lower()
    assert answer.startswith(b"http/1.1 ")
    for word in (b"\r\nserver:", b"uvicorn", b"python", b"x-powered-by", b"starlette"):
        assert word not in answer


@pytest.mark.parametrize(
    "head",
    [
        b"GET /api/v1/session HTTP/1.1\r\n",  # no Host
        b"GET /api/v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n",
        b"GET http://evil.example/api/v1/session HTTP/1.1\r\nHost: evil.example\r\n",
        b"GET /api/v1/session HTTP/1.0\r\n",
        b"POST /api/v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n"
        b"Content-Length: 2\r\n",
        b"POST /api/v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\nb\r\n",
    ],
)
def test_malformed_requests_are_refused(studio, head):
    answer = answer_to(address_of(studio.url), head + b"Connection: close\r\n\r\n")
    assert re.match(rb"HTTP/1\.1 4\d\d ", answer)


def test_a_body_without_a_length_is_cut_at_the_limit(studio):
    host, port = address_of(studio.url)
    head = (
        f"POST /api/v1/session HTTP/1.1\r\nHost: {host}:{port}\r\nX-Visionloop: 1\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((host, port), timeout=SECONDS) as connection:
        connection.sendall(head.encode())
        sent = 0
        try:
            while sent < 64 << 20:
                connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                sent += 65536
        except OSError:
            pass  # the server has closed
        assert sent < 16 << 20


def test_the_log_of_the_server_has_one_line_for_one_message(caplog):
    name = "run\nERROR: forged\r\x1b[2Jsecond\u2028line\x85"
    record = logging.LogRecord("x", logging.ERROR, "", 0, "%s: damaged", (name,), None)
    text = LineFormatter("%(levelname)s: %(message)s").format(record)
    assert text.splitlines() == [text] and "\x1b" not in text and "run\\nERROR" in text


def test_a_state_folder_that_cannot_be_made_is_one_line(tmp_path, command):
    (tmp_path / "file").touch()
    code, _, err = command("", state=tmp_path / "file/state", runs=tmp_path / "runs", port=0)
    assert code == 2 and f"{tmp_path / 'file/state'}: Not a directory" in err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "127.0.0.1.org"])
def test_another_address_needs_tls_or_the_flag(tmp_path, command, host):
    with socket.create_server(("", 0)) as taken:  # a server that came so far would end there
        port = taken.getsockname()[1]
        options = {"state": tmp_path / "state", "runs": tmp_path / "runs", "port": port}
        code, out, err = command("", host=host, **options)
    assert code == 2 and f"--host {host}: " in err and "--insecure-http" in err and out == ""
    assert not (tmp_path / "state").exists()


def test_an_address_is_safe_on_the_loopback_with_tls_or_with_the_flag(tmp_path):
    config = {"data": (), "runs": (), "models": (), "state": tmp_path}
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        require_safe_address(StudioConfig(**config, host=host))
    require_safe_address(StudioConfig(**config, host="0.0.0.0", insecure=True))
    require_safe_address(StudioConfig(**config, host="0.0.0.0", certificate=tmp_path))
    with pytest.raises(UserError):
        require_safe_address(StudioConfig(**config, host="0.0.0.0"))


def test_the_link_names_a_host_that_the_server_accepts(tmp_path):
    config = {"data": (), "runs": (), "models": (), "state": tmp_path}
    link = link_of(StudioConfig(**config, host="::1"), 80, "T")
    assert link == "http://[::1]:80/#token=T"
    assert link_host("0.0.0.0") == link_host("::") == socket.gethostname()
    with studio_server(tmp_path, "--host", "0.0.0.0", "--insecure-http") as server:
        _, port = address_of(server.url)
        for name in (socket.gethostname().lower(), "127.0.0.1"):
            head = f"GET / HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n"
            answer = answer_to(("127.0.0.1", port), head.encode())
            assert answer.startswith(b"HTTP/1.1 200 "), name


@pytest.fixture
def certificate(tmp_path):
    """Files of a certificate for 127.0.0.1, signed by its own key, and of its key."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "studio of a test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"
    files[0].write_bytes(signed.public_bytes(pem))
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(pem, form, plain))
    return files


def test_with_tls_the_cookie_is_sent_over_tls_alone(tmp_path, certificate):
    options = ("--certificate", str(certificate[0]), "--private-key", str(certificate[1]))
    with studio_server(tmp_path, *options) as server:
        assert server.url.startswith("https://127.0.0.1:")
        trusted = ssl.create_default_context(cafile=certificate[0])
        headers = {
            "X-Visionloop": "1",
            "Content-Type": "application/json",
            "Origin": server.url,
            "Sec-Fetch-Site": "same-origin",
        }
        body = json.dumps({"token": server.token}).encode()
        request = urllib.request.Request(f"{server.url}/api/v1/session", body, headers)
        with urllib.request.urlopen(request, context=trusted, timeout=SECONDS) as response:
            assert response.status == 204
            assert "; Secure" in response.headers["set-cookie"]
        with pytest.raises(OSError):  # plain HTTP on the same port
            urllib.request.urlopen(server.url.replace("https", "http"), timeout=SECONDS)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(certificate[0])
        with pytest.warns(DeprecationWarning):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError):
            urllib.request.urlopen(server.url, context=old, timeout=SECONDS)


def test_a_certificate_that_is_none_is_refused_in_one_line(tmp_path, command, certificate):
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    options = {"state": tmp_path / "state", "runs": tmp_path / "runs", "port": 0}
    for pair in (
        (wrong, certificate[1]),
        (certificate[0], wrong),
        (certificate[1], certificate[0]),
    ):
        code, out, err = command("", certificate=pair[0], private_key=pair[1], **options)
        assert code == 2 and "expected two PEM files that belong together" in err and out == ""
        assert len(err.splitlines()) == 1
    code, _, err = command("", certificate=certificate[0], **options)
    assert code == 2 and "--certificate and --private-key belong together" in err
