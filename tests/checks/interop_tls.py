#!/usr/bin/env python3
# tram-check: release-only
"""TLS with others: Python's ssl, OpenSSL's programs, curl and GnuTLS's where they are installed, in both directions.

rules: S-1, S-7, S-8, S-9, S-12, S-25, S-27
"""

import asyncio
import functools
import http.server
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

BUILD = pathlib.Path(os.environ.get("TRAM_BUILD_DIR") or "build/release").absolute()
SUPPORT = (pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or ".") / "tests/support").absolute()
ECHO, LOAD, EXAMPLES = BUILD / "tools/tram-echo", BUILD / "tools/tram-load", BUILD / "examples"

if not (BUILD / "libtram-tls.so").exists() or not shutil.which("openssl"):
    print("no TLS here")
    sys.exit(77)

work = pathlib.Path(tempfile.mkdtemp(prefix="tram-interop-tls-"))
problems = []
started = []


def check(condition, what):
    print(("ok      " if condition else "FAILED  ") + what)
    if not condition:
        problems.append(what)


def openssl(*arguments, **options):
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=work, **options)


def certificate(name, subject, names, *options):
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={subject}",
            *(["-addext", f"subjectAltName={names}"] if names else []), *options)


def own_port():
    return int(subprocess.run([sys.executable, SUPPORT / "own_port.py"], check=True, capture_output=True).stdout)


def start(*command):
    """A server that says so when it listens, or fails the test."""
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, cwd=work)
    started.append(process)
    line = process.stdout.readline()
    if not line.startswith("listening on"):
        sys.exit(f"{command[0]}: {line}{process.stdout.read()}")
    return process, int(line.split()[2].rpartition(":")[2])


def client_context(**options):
    context = ssl.create_default_context(cafile=work / "ca.pem")
    for name, value in options.items():
        setattr(context, name, value)
    return context


def echo(connection, data):
    """In one thread: before 3.13 Python's ssl lets two use a connection at once, which OpenSSL forbids."""
    received = b""
    for start in range(0, len(data), 50000):
        connection.sendall(data[start:start + 50000])
        while len(received) < min(start + 50000, len(data)):
            piece = connection.recv(65536)
            if not piece:
                return False
            received += piece
    return received == data


def python_clients(port):
    data = os.urandom(300000)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = client_context(minimum_version=version, maximum_version=version)
        session = None
        for turn in range(2):
            with socket.create_connection(("127.0.0.1", port), 20) as plain:
                with context.wrap_socket(plain, server_hostname="localhost", session=session,
                                         suppress_ragged_eofs=False) as connection:
                    check(echo(connection, data), f"Python's client, {connection.version()}, 300000 bytes")
                    if turn:
                        check(connection.session_reused, f"Python's client resumes, {connection.version()}")
                    session = connection.session
                    connection.unwrap() # our close_notify and tram's
    context = client_context()
    try:
        with socket.create_connection(("127.0.0.1", port), 20) as plain:
            context.wrap_socket(plain, server_hostname="elsewhere")
        check(False, "Python's client refuses another name")
    except ssl.SSLCertVerificationError:
        check(True, "Python's client refuses another name")


def openssl_client(port, data, *options):
    return subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost",
                           "-CAfile", "ca.pem", "-verify_return_error", "-verify_hostname", "localhost", *options],
                          input=data, capture_output=True, text=True, cwd=work, timeout=30)


def openssl_clients(port):
    for version in ("-tls1_2", "-tls1_3"):
        output = openssl_client(port, "hello\nQ\n", version).stdout
        check("Verify return code: 0 (ok)" in output, f"openssl s_client {version}")
    with subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", "ca.pem", "-tls1_3"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          cwd=work) as process:
        process.stdin.write("first\n")
        process.stdin.flush()
        while (line := process.stdout.readline()) and line != "first\n":
            pass
        process.stdin.write("K\n") # new keys in both directions
        process.stdin.flush()
        time.sleep(0.2) # s_client reads its commands line by line, and K must not have company
        process.stdin.write("second\n")
        process.stdin.flush()
        while (line := process.stdout.readline()) and line != "second\n":
            pass
        check(line == "second\n", "openssl s_client updates its keys")
        process.kill()
    output = openssl_client(port, "", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    check(output.returncode != 0, "openssl s_client -tls1_1 is refused")


def other_clients(port):
    if shutil.which("gnutls-cli"):
        result = subprocess.run(["gnutls-cli", "--x509cafile", "ca.pem", "-p", str(port), "localhost"], cwd=work,
                                input="from gnutls\n", capture_output=True, text=True, timeout=30)
        check("from gnutls" in result.stdout, "gnutls-cli")


def reload(server, port):
    def serial():
        with socket.create_connection(("127.0.0.1", port), 20) as plain:
            with client_context().wrap_socket(plain, server_hostname="localhost") as connection:
                return connection.getpeercert()["serialNumber"]
    before = serial()
    certificate("server", "server", "DNS:localhost,IP:127.0.0.1", "-CA", "ca.pem", "-CAkey", "ca.key")
    server.send_signal(signal.SIGHUP)
    end = time.monotonic() + 20
    while (after := serial()) == before and time.monotonic() < end:
        time.sleep(0.02)
    check(after != before, "SIGHUP brings the new certificate")


def load(port):
    for options in ([], ["--churn"], ["--churn", "--resume"], ["--insecure"], ["--size", "40000"]):
        trust = [] if "--insecure" in options else ["--ca", "ca.pem"]
        result = subprocess.run([LOAD, "--tls", *trust, *options, "--host", "localhost", "--port", str(port),
                                 "--connections", "4", "--duration", "0.3"], capture_output=True, text=True, cwd=work)
        check(result.returncode == 0, f"tram-load --tls {' '.join(options)} {result.stderr}")
    certificate("other", "other CA", "")
    result = subprocess.run([LOAD, "--tls", "--ca", "other.pem", "--host", "localhost", "--port", str(port),
                             "--connections", "1", "--duration", "0.1"], capture_output=True, text=True, cwd=work)
    check(result.returncode == 4 and "certificate" in result.stderr, f"tram-load names the reason: {result.stderr}")


def stop_says_goodbye(server, port):
    with socket.create_connection(("127.0.0.1", port), 20) as plain:
        with client_context().wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as connection:
            check(echo(connection, b"still here"), "an idle client before SIGTERM")
            server.send_signal(signal.SIGTERM)
            check(connection.recv(100) == b"", "SIGTERM: close_notify, not an end that was cut off")
    server.wait(20)


def client_certificates():
    server, port = start(ECHO, "--port", "0", "--tls-cert", "server.pem", "--tls-key", "server.key",
                         "--tls-client-ca", "ca.pem", "--tls-min", "1.3", "--alpn", "echo/1")
    context = client_context()
    context.set_alpn_protocols(["other", "echo/1"])
    context.load_cert_chain(work / "client.pem", work / "client.key")
    with socket.create_connection(("127.0.0.1", port), 20) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as connection:
            check(echo(connection, b"known") and connection.selected_alpn_protocol() == "echo/1",
                  "a client with a certificate, and ALPN")
    try:
        with socket.create_connection(("127.0.0.1", port), 20) as plain:
            with client_context().wrap_socket(plain, server_hostname="localhost") as connection:
                connection.recv(1)
        check(False, "a client without a certificate is refused")
    except (ssl.SSLError, ConnectionError) as error:
        check("CERTIFICATE_REQUIRED" in str(error) or "certificate required" in str(error),
              f"a client without a certificate is refused: {error}")
    server.terminate()


def https():
    """The example of a client against Python's server, and of a proxy that ends TLS, with curl before it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(work / "server.pem", work / "server.key")
    handler = functools.partial(type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None}),
                                directory=work)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    end = time.monotonic() + 20
    result = subprocess.run([EXAMPLES / "https-head", "localhost", str(port), "ca.pem"], cwd=work, capture_output=True,
                            text=True, timeout=30)
    check(result.returncode == 0 and "TLSv1.3 with TLS_" in result.stdout and "200 OK" in result.stdout, f"https-head: {result.stderr}")
    result = subprocess.run([EXAMPLES / "https-headers", "localhost", str(port), "ca.pem"], cwd=work, capture_output=True,
                            text=True, timeout=30)
    check(result.returncode == 0 and result.stdout.startswith("HTTP/1.0 200 OK\nServer:"), f"https-headers: {result.stderr}")
    result = subprocess.run([EXAMPLES / "https-headers", "127.1", str(port), "ca.pem"], cwd=work, capture_output=True,
                            text=True, timeout=30)
    check(result.returncode == 1 and result.stderr.startswith("https-headers: "), f"https-headers refuses: {result.stderr.strip()}")
    result = subprocess.run([EXAMPLES / "https-head", "127.1", str(port), "ca.pem"], cwd=work, capture_output=True,
                            text=True, timeout=30)
    check(result.returncode == 1, f"https-head refuses what it should: {result.stderr.strip()}")
    server.shutdown()

    plain_port = own_port()
    plain = subprocess.Popen([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(plain_port)], cwd=work,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started.append(plain)
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", plain_port), 1).close()
            break
        except OSError:
            time.sleep(0.02)
    proxy, port = start(EXAMPLES / "tls-proxy", "0", "server.pem", "server.key", "127.0.0.1", plain_port)
    if shutil.which("curl"):
        result = subprocess.run(["curl", "-sS", "--cacert", "ca.pem", f"https://localhost:{port}/ca.pem"], cwd=work,
                                capture_output=True, text=True, timeout=30)
        check(result.stdout == (work / "ca.pem").read_text(), f"curl through tls-proxy {result.stderr}")
    proxy.terminate()
    plain.kill()


def starttls():
    server, port = start(EXAMPLES / "starttls-server", "0", "server.pem", "server.key")

    async def talk():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"NOOP\r\n")
        plain = await reader.readline()
        writer.write(b"STARTTLS\r\n")
        ready = await reader.readline()
        await writer.start_tls(client_context(), server_hostname="localhost")
        writer.write(b"NOOP\r\n")
        secured = await reader.readline()
        writer.write(b"QUIT\r\n")
        bye = await reader.readline()
        writer.close()
        return plain, ready, secured, bye

    if sys.version_info >= (3, 11):
        answers = asyncio.run(asyncio.wait_for(talk(), 30))
        check(answers == (b"250 plain NOOP\r\n", b"220 go ahead\r\n", b"250 secured NOOP\r\n", b"221 bye\r\n"),
              f"asyncio's start_tls with starttls-server: {answers}")
    with socket.create_connection(("127.0.0.1", port), 20) as plain:
        plain.sendall(b"STARTTLS\r\nINJECTED\r\n")
        received = b""
        try:
            while piece := plain.recv(4096):
                received += piece
        except ConnectionError:
            pass
        check(b"INJECTED" not in received and received.startswith(b"220 "), "what comes behind STARTTLS is no command")
    server.terminate()


try:
    certificate("ca", "test CA", "")
    certificate("server", "server", "DNS:localhost,IP:127.0.0.1", "-CA", "ca.pem", "-CAkey", "ca.key")
    certificate("client", "client", "", "-CA", "ca.pem", "-CAkey", "ca.key")
    server, port = start(ECHO, "--port", "0", "--tls-cert", "server.pem", "--tls-key", "server.key", "--workers", "2")
    python_clients(port)
    openssl_clients(port)
    other_clients(port)
    reload(server, port)
    load(port)
    stop_says_goodbye(server, port)
    client_certificates()
    https()
    starttls()
finally:
    for process in started:
        process.kill()
    shutil.rmtree(work)
print(f"{len(problems)} problems")
sys.exit(1 if problems else 0)
