#!/usr/bin/env python3
# tram-check: release-only
"""TLS with servers and proxies of others, where they are installed, and ends under load.

OpenSSL's s_client and s_server (resumption, ALPN, server names, client certificates, new keys), GnuTLS in both roles,
asyncio (its start_tls, too), curl, nginx and haproxy. What tram's tools do not have is interop_tls.c, built here. A stop and a restart by inheritance under TLS load: whoever finished a handshake gets our close_notify.

rules: S-4, S-7, S-8, S-9, S-12, S-15, S-25, S-27, V-42, G-6
"""

import asyncio
import json
import os
import pathlib
import pty
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from checks import compile_program  # noqa: E402

BUILD = pathlib.Path(os.environ.get("TRAM_BUILD_DIR") or "build/release").absolute()
SUPPORT = (pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or ".") / "tests/support").absolute()
ECHO, LOAD, EXAMPLES = BUILD / "tools/tram-echo", BUILD / "tools/tram-load", BUILD / "examples"
PATIENCE = 30

if not (BUILD / "libtram-tls.so").exists() or not shutil.which("openssl"):
    print("no TLS here")
    sys.exit(77)

work = pathlib.Path(tempfile.mkdtemp(prefix="tram-interop-tls-"))
problems = []
started = []


def check(condition, what):
    print(("ok      " if condition else "FAILED  ") + what, flush=True)
    if not condition:
        problems.append(what)


def certificate(name, subject, names):
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key"] if name != "ca" else []
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "2", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={subject}",
                    *(["-addext", f"subjectAltName={names}"] if names else []), *signed],
                   check=True, capture_output=True, cwd=work)
    (work / f"{name}.both").write_text((work / f"{name}.pem").read_text() + (work / f"{name}.key").read_text())


def own_port():
    return int(subprocess.run([sys.executable, SUPPORT / "own_port.py"], check=True, capture_output=True).stdout)


def spawn(*command):
    process = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, cwd=work)
    started.append(process)
    return process


def tram(*command):
    """A program of ours that has said where it listens."""
    process = spawn(*command)
    line = process.stdout.readline()
    if not line.startswith("listening on"):
        sys.exit(f"{command[0]}: {line}{process.stdout.read()}")
    return process, int(line.split()[2].rpartition(":")[2])


def stranger(port, *command):
    """Somebody else's, once it takes connections; it need not take to one that says nothing."""
    process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, cwd=work)
    started.append(process)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            time.sleep(0.02)
    sys.exit(f"{command[0]} does not listen")


def end(process):
    process.terminate()
    process.wait(PATIENCE)


def run(*command, data=""):
    return subprocess.run([str(part) for part in command], input=data, capture_output=True, text=True, cwd=work,
                          timeout=PATIENCE)


def load(port, *options, what):
    trust = [] if "--ca" in options else ["--ca", "ca.pem"]
    result = run(LOAD, "--tls", *trust, "--host", "localhost", "--port", port, "--connections", "3", "--duration", "0.2",
                 *options)
    check(result.returncode == 0, f"{what} {result.stderr.strip()}")


def s_client(port, *options, data="Q\n"):
    return run("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-CAfile", "ca.pem",
               "-verify_return_error", *options, data=data)


def openssl_client():
    server, port = tram(ECHO, "--port", "0", "--tls-cert", "server.pem", "--tls-key", "server.key", "--tls-client-ca",
                        "ca.pem", "--alpn", "echo/1", "--workers", "2")
    ours = ["-cert", "client.pem", "-key", "client.key"]
    for version in ("-tls1_2", "-tls1_3"):
        output = s_client(port, version, *ours, "-alpn", "other,echo/1", "-sess_out", "session").stdout
        check("ALPN protocol: echo/1" in output, f"s_client {version}: a client certificate, and ALPN")
        # A client has several tickets of TLS 1.3 only when it has read something.
        with subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", "ca.pem", version,
                               *ours, "-sess_out", "session"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, cwd=work) as process:
            process.stdin.write("hello\n")
            process.stdin.flush()
            guard = threading.Timer(PATIENCE, process.kill)
            guard.start()
            while (line := process.stdout.readline()) and not line.endswith("hello\n"):
                pass
            process.stdin.write("Q\n")
            process.stdin.flush()
            process.stdout.read()
            guard.cancel()
        output = s_client(port, version, *ours, "-sess_in", "session").stdout
        check("Reused, TLSv1" in output, f"s_client {version} resumes, on whatever worker")
        result = s_client(port, version, *ours, "-alpn", "other")
        check(result.returncode != 0 and "no application protocol" in result.stderr, f"s_client {version}: other ALPN")
        result = s_client(port, "-tls1_2")
        check(result.returncode != 0, "s_client without a certificate is refused")
    if shutil.which("gnutls-cli"):
        result = run("gnutls-cli", "--x509cafile", "ca.pem", "--x509certfile", "client.pem", "--x509keyfile",
                     "client.key", "--alpn", "echo/1", "--resume", "-p", port, "localhost", data="from gnutls\n")
        check("from gnutls" in result.stdout and "*** This is a resumed session" in result.stdout,
              f"gnutls-cli: a client certificate, ALPN, and it resumes {result.stderr.strip()}")
    end(server)


def names(program):
    """A server that has several, and chooses by the one that is asked for."""
    for name in "first", "second":
        certificate(name, name, f"DNS:{name}.test")
    server, port = tram(program, "names", "first.both", "second.both")
    for asked, answered in (("first.test", "first"), ("second.test", "second"), (None, "first")):
        name = ["-servername", asked] if asked else ["-noservername"]
        for version in ("-tls1_2", "-tls1_3"):
            output = run("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", "ca.pem", version,
                         "-verify_return_error", "-verify_hostname", f"{answered}.test", "-quiet", *name,
                         data="hello\n").stdout
            check(f"asked for {asked or 'no name'}\n" in output, f"s_client {version} asks for {asked}: {output!r}")
    for version in ("-tls1_2", "-tls1_3"):
        result = run("openssl", "s_client", "-connect", f"127.0.0.1:{port}", version, "-servername", "nobody.test")
        check("unrecognized name" in result.stderr, f"s_client {version} asks for a name that there is not")
    if shutil.which("curl"):
        for name in "first.test", "second.test":
            result = run("curl", "-sS", "--cacert", "ca.pem", "--resolve", f"{name}:{port}:127.0.0.1",
                         f"https://{name}:{port}/")
            check(result.stdout == f"asked for {name}\n", f"curl asks for {name} {result.stderr.strip()}")
    if shutil.which("gnutls-cli"):
        result = run("gnutls-cli", "--x509cafile", "ca.pem", "--sni-hostname", "second.test", "--verify-hostname",
                     "second.test", "-p", port, "localhost", data="hello\n")
        check("asked for second.test" in result.stdout, f"gnutls-cli asks for second.test {result.stderr.strip()}")
    end(server)


class OpensslServer:
    """s_server, which says what it hears, and hears what it is to say: without an answer of its own that is the same."""

    def __init__(self, version, *options, answer=None):
        self.port = own_port()
        self.answer = answer
        self.complaints = work / f"s_server-{self.port}"
        ours, its = pty.openpty() if answer else (None, subprocess.PIPE) # of a terminal it reads line by line
        self.process = subprocess.Popen(
            ["openssl", "s_server", "-accept", f"127.0.0.1:{self.port}", version, *options], stdin=its,
            stdout=subprocess.PIPE, stderr=open(self.complaints, "w"), cwd=work)
        started.append(self.process)
        self.words = ours or self.process.stdin.fileno()
        threading.Thread(target=self.talk, daemon=True).start()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                time.sleep(0.02)

    def talk(self):
        heard = b""
        while piece := os.read(self.process.stdout.fileno(), 65536):
            heard += piece
            if self.answer is None:
                os.write(self.words, piece)
            elif b"\r\n\r\n" in heard:
                os.write(self.words, self.answer)
                self.answer = b""

    def end(self):
        self.process.kill()
        self.process.wait(PATIENCE)


def openssl_server():
    ours = ["-cert", "server.pem", "-key", "server.key"]
    for version in ("-tls1_2", "-tls1_3"):
        server = OpensslServer(version, "-quiet", "-cert", "other.pem", "-key", "other.key", "-servername", "localhost",
                               "-cert2", "server.pem", "-key2", "server.key", "-Verify", "2", "-verify_return_error",
                               "-CAfile", "ca.pem", "-alpn", "echo/1")
        known = ["--cert", "client.pem", "--key", "client.key"]
        load(server.port, *known, "--alpn", "echo/1", "--connections", "1", "--size", "50000",
             what=f"s_server {version}: a name, a client certificate, ALPN")
        result = run(LOAD, "--tls", "--ca", "ca.pem", "--host", "localhost", "--port", server.port, "--connections", "1",
                     "--duration", "0.2", "--timeout-ms", "3000")
        check(result.returncode != 0, f"s_server {version} refuses who has no certificate")
        server.complaints.write_text("") # it looks at a certificate once, and then knows who resumes
        result = run(LOAD, "--tls", "--ca", "ca.pem", *known, "--alpn", "echo/1", "--host", "localhost", "--port",
                     server.port, "--connections", "1", "--duration", "0.2", "--churn", "--resume", "--json")
        looked = server.complaints.read_text().count("depth=0")
        connections = json.loads(result.stdout or "{}").get("requests", 0)
        check(result.returncode == 0 and connections > looked, f"s_server {version}: we resume: {connections} "
              f"connections, {looked} certificates {result.stderr.strip()}")
        server.end()
    server = OpensslServer("-tls1_3", *ours, "-crlf", answer=b"K\nHTTP/1.0 200 OK\n\nQ\n")
    result = run(EXAMPLES / "https-head", "localhost", server.port, "ca.pem")
    check("200 OK" in result.stdout, f"s_server changes its keys and asks for ours {result.stderr.strip()}")
    server.end()


def servers():
    if shutil.which("gnutls-serv"):
        for name, priority in (("1.2", "NORMAL:-VERS-ALL:+VERS-TLS1.2"), ("1.3", "NORMAL:-VERS-ALL:+VERS-TLS1.3")):
            port = own_port()
            server = stranger(port, "gnutls-serv", "--http", "--x509certfile", "server.pem", "--x509keyfile",
                              "server.key", "--priority", priority, "-p", port, "--quiet")
            result = run(EXAMPLES / "https-head", "localhost", port, "ca.pem")
            check(result.returncode == 0 and f"TLSv{name}" in result.stdout,
                  f"gnutls-serv {name}: {result.stdout[:40]!r} {result.stderr.strip()}")
            server.kill()


def asyncio_server():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(work / "server.pem", work / "server.key")
    ready = threading.Event()
    port = None

    async def serve():
        nonlocal port

        async def echo(reader, writer):
            try:
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
                writer.close()
            except (ConnectionError, ssl.SSLError):
                writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        ready.set()
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    ready.wait(PATIENCE)
    load(port, what="asyncio's server")
    load(port, "--size", "70000", what="asyncio's server, large messages")
    load(port, "--churn", "--resume", what="asyncio's server, sessions resumed")


def asyncio_start_tls(program):
    """The server begins with TLS on an open connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(work / "server.pem", work / "server.key")

    async def talk(reader, writer):
        writer.write(b"go ahead after " + await reader.readline())
        await writer.start_tls(context)
        writer.write(await reader.readline())
        version = writer.get_extra_info("ssl_object").version()
        writer.write((await reader.readline()).strip() + f" {version}\n".encode())
        await reader.read()
        writer.close()

    async def serve():
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        client = await asyncio.create_subprocess_exec(
            program, "starttls", str(server.sockets[0].getsockname()[1]), work / "ca.pem",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        output, _ = await asyncio.wait_for(client.communicate(), PATIENCE)
        server.close()
        return client.returncode, output.decode()

    if sys.version_info >= (3, 11):
        answer = asyncio.run(serve())
        check(answer == (0, "go ahead after STARTTLS\nhello\nbye TLSv1.3\n"), f"start_tls with asyncio's: {answer}")


def nginx():
    if not shutil.which("nginx"):
        return
    port = own_port()
    (work / "nginx.conf").write_text(f"""
daemon off; master_process off; pid {work}/nginx.pid; error_log {work}/nginx.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl; server_name localhost; root {work};
        ssl_certificate {work}/server.pem; ssl_certificate_key {work}/server.key; ssl_protocols TLSv1.2 TLSv1.3;
        location / {{ return 200; }}
    }}
}}
""")
    server = stranger(port, "nginx", "-p", work, "-c", work / "nginx.conf")
    result = run(EXAMPLES / "https-head", "localhost", port, "ca.pem")
    check(result.returncode == 0 and "200 OK" in result.stdout, f"nginx as the server: {result.stderr.strip()}")
    server.kill()


def haproxy():
    if not shutil.which("haproxy"):
        return
    server, port = tram(ECHO, "--port", "0", "--tls-cert", "server.pem", "--tls-key", "server.key")
    plain, plain_port = tram(ECHO, "--port", "0")
    to_tls, from_tls, through = own_port(), own_port(), own_port()
    (work / "haproxy.cfg").write_text(f"""
global
    ssl-server-verify required
defaults
    mode tcp
    timeout connect 20s
    timeout client 60s
    timeout server 60s
listen to_tls
    bind 127.0.0.1:{to_tls}
    server tram 127.0.0.1:{port} ssl verify required ca-file {work}/ca.pem sni str(localhost) verifyhost localhost
listen from_tls
    bind 127.0.0.1:{from_tls} ssl crt {work}/server.both
    server tram 127.0.0.1:{plain_port}
listen through
    bind 127.0.0.1:{through}
    server tram 127.0.0.1:{port}
""")
    proxy = stranger(to_tls, "haproxy", "-db", "-f", "haproxy.cfg")
    result = run(LOAD, "--port", to_tls, "--connections", "3", "--duration", "0.2")
    check(result.returncode == 0, f"haproxy speaks TLS to tram {result.stderr.strip()}")
    load(from_tls, what="tram speaks TLS to haproxy")
    load(from_tls, "--churn", "--resume", what="tram speaks TLS to haproxy, sessions resumed")
    load(through, "--size", "40000", what="haproxy lets TLS through")
    proxy.kill()
    end(server)
    end(plain)


class Crowd:
    """Clients that echo all the time; each end must be the server's close_notify. Some stay, some come and go."""

    def __init__(self, port, stays):
        self.port, self.stays = port, stays
        self.echoes, self.ended, self.refused = 0, 0, 0
        self.wrong = []
        self.over = False
        self.context = ssl.create_default_context(cafile=work / "ca.pem")
        self.threads = [threading.Thread(target=self.visit, daemon=True) for _ in range(8)]
        for thread in self.threads:
            thread.start()

    def visit(self):
        while not self.over:
            finished = False
            try:
                with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as plain:
                    with self.context.wrap_socket(plain, server_hostname="localhost",
                                                  suppress_ragged_eofs=False) as client:
                        finished = True
                        self.talk(client)
            except ConnectionRefusedError:
                self.refused += 1
                return
            except (OSError, ssl.SSLError) as error:
                if finished:
                    self.wrong.append(repr(error))

    def talk(self, client):
        for _ in range(1000000 if self.stays else 3):
            if self.over:
                return
            client.sendall(b"x" * 100)
            got = 0
            while got < 100:
                part = client.recv(100)
                if not part:
                    self.ended += 1
                    return
                got += len(part)
            self.echoes += 1

    def more(self, echoes):
        until, limit = self.echoes + echoes, time.monotonic() + PATIENCE
        while self.echoes < until and time.monotonic() < limit:
            time.sleep(0.005)
        check(self.echoes >= until, "the clients are served")

    def leave(self):
        self.over = True
        for thread in self.threads:
            thread.join(PATIENCE)


OURS = ["--tls-cert", "server.pem", "--tls-key", "server.key", "--workers", "2"]


def stop_under_load():
    for stays in (True, False):
        server, port = tram(ECHO, "--port", "0", *OURS)
        crowd = Crowd(port, stays)
        crowd.more(100)
        begin = time.monotonic()
        server.send_signal(signal.SIGTERM)
        code = server.wait(PATIENCE)
        check(code == 0 and time.monotonic() - begin < 10, f"SIGTERM under TLS load ends within the grace: {code}")
        crowd.leave()
        check(not crowd.wrong and (crowd.ended > 0 or not stays),
              f"{crowd.ended} clients got our close_notify after SIGTERM; {crowd.wrong[:3]}")


def restart_under_load():
    options = ["--port", "0", *OURS, "--inherit", work / "offer", "--drain-ms", "300"]
    server, port = tram(ECHO, *options)
    crowd = Crowd(port, True)
    crowd.more(100)
    for _ in range(2):
        old = server
        server, new_port = tram(ECHO, *options)
        check(new_port == port, "the next process listens where the one before did")
        check(old.wait(PATIENCE) == 0, "the one before ends")
        crowd.more(100)
    crowd.leave()
    check(not crowd.wrong and crowd.ended >= 8 and not crowd.refused,
          f"{crowd.ended} clients got our close_notify in restarts, {crowd.refused} were refused; {crowd.wrong[:3]}")
    end(server)


try:
    certificate("ca", "test CA", "")
    certificate("server", "server", "DNS:localhost,IP:127.0.0.1")
    certificate("client", "client", "")
    certificate("other", "other", "DNS:elsewhere")
    program = compile_program("interop_tls", work, "-ltram-tls")
    openssl_client()
    names(program)
    openssl_server()
    servers()
    asyncio_server()
    asyncio_start_tls(program)
    nginx()
    haproxy()
    stop_under_load()
    restart_under_load()
finally:
    for process in started:
        process.kill()
    shutil.rmtree(work, ignore_errors=True)
print(f"{len(problems)} problems")
sys.exit(1 if problems else 0)
