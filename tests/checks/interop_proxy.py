#!/usr/bin/env python3
# tram-check: release-only
"""Headers of the PROXY protocol, versions 1 and 2, between tram and others: haproxy, nginx and curl.

They stand in front of tram, at IPv4, IPv6 and a Unix socket, and tram in front of haproxy and nginx. Each connection
must be known by the addresses that its client really has, checks of a proxy's own by their own. tram's side is
interop_proxy.c, built here.

rules: Y-6
"""

import os
import pathlib
import queue
import re
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
from checks import SOURCE, check, compile_program, failures  # noqa: E402

STREAM_MODULE = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")
PATIENCE = 30

work = pathlib.Path(tempfile.mkdtemp(prefix="tram-proxy-"))
program = work / "interop_proxy"
started = []


def own_ports():
    """As many as one process may have of its own: 8."""
    done = subprocess.run([sys.executable, SOURCE / "tests/support/own_port.py", "tcp", "8"], check=True,
                          capture_output=True)
    return [int(line) for line in done.stdout.split()]


class Tram:
    """Our server, and what it was told of each connection."""

    def __init__(self):
        self.path = str(work / "tram.sock")
        self.process = subprocess.Popen([program, "server", self.path], stdout=subprocess.PIPE, text=True)
        started.append(self.process)
        self.port, self.port6 = (int(word) for word in self.process.stdout.readline().split()[1:])
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)

    def told_of(self, target):
        """The next request for this."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            line = self.lines.get(timeout=PATIENCE)
            if line.startswith(target + " "):
                return line.split()[1:]
        return []

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        check(self.process.wait(PATIENCE) == 0, "our server ends well")


def stranger(place, *command):
    """Somebody else's server, once it takes connections there."""
    with open(work / "strangers.log", "ab") as log:
        process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   cwd=work)
    started.append(process)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            connect(place).close()
            return process
        except OSError:
            time.sleep(0.01)
    sys.exit(f"{command[0]} does not listen: {(work / 'strangers.log').read_text()}")


def connect(place, source=None):
    if isinstance(place, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(place)
        return sock
    return socket.create_connection(place, PATIENCE, source_address=source)


def text_of(address):
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def ask(place, source=None, context=None, target="/x"):
    """The body of the answer, and the two addresses as this client knows them."""
    with connect(place, source) as plain:
        plain.settimeout(PATIENCE)
        ends = None if isinstance(place, str) else [text_of(plain.getsockname()), text_of(plain.getpeername())]
        client = context.wrap_socket(plain, server_hostname="tram.test") if context else plain
        client.sendall(f"GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        answer = b""
        while part := client.recv(65536):
            answer += part
        return answer.partition(b"\r\n\r\n")[2].decode().split(), ends


def in_front(name, place, source=None, context=None):
    """Who is asked at `place` by a client of `source` hands it on to tram, which knows it by its addresses."""
    told, ends = ask(place, source, context)
    check(told[:2] == ends, f"{name}: {' '.join(told)}")
    return told[2:]


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
            return True
    except OSError:
        return False


# ---- curl ----

def curl(tram):
    if not shutil.which("curl"):
        print("skipped: no curl here")
        return

    def run(*options):
        done = subprocess.run(["curl", "-sS", "--noproxy", "*", "--haproxy-protocol", "--max-time", str(PATIENCE),
                               "-w", " %{local_ip} %{local_port} %{remote_port}", *options], capture_output=True,
                              text=True, check=False)
        return (done.stdout + done.stderr).split()

    told = run(f"http://127.0.0.1:{tram.port}/")
    check(told[:2] == [f"{told[2]}:{told[3]}", f"127.0.0.1:{told[4]}"], f"curl: {told}")
    told = run(f"http://[::1]:{tram.port6}/")
    check(told[:2] == [f"[{told[2]}]:{told[3]}", f"[::1]:{told[4]}"], f"curl, IPv6: {told}")
    told = run("--unix-socket", tram.path, "http://localhost/")
    check(told[:2] == ["unix:", f"unix:{tram.path}"], f"curl, Unix (UNKNOWN): {told}")


# ---- haproxy ----

HAPROXY = """
defaults
    timeout connect 20s
    timeout client 60s
    timeout server 60s
"""
LISTEN = """
listen {name}
    mode tcp
    unique-id-format id-%ci-%cp
    bind {bind}
    server tram {server} {options}
"""
TELL = """
frontend {name}
    mode http
    bind {bind} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"
"""


def certificate():
    if not shutil.which("openssl"):
        return None
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                    "2", "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=tram.test", "-addext",
                    "subjectAltName=DNS:tram.test"], check=True, capture_output=True, cwd=work)
    (work / "both.pem").write_text((work / "cert.pem").read_text() + (work / "key.pem").read_text())
    context = ssl.create_default_context(cafile=work / "cert.pem")
    context.set_alpn_protocols(["http/1.0"])
    return context


def haproxy(tram):
    if not shutil.which("haproxy"):
        print("skipped: no haproxy here")
        return
    context = certificate()
    places, config, ports = {}, [HAPROXY], own_ports() + own_ports()

    def listen(name, host, server, options, tls=""):
        places[name] = (host, ports.pop()) if host else str(work / f"{name}.sock")
        bind = f"{host}:{places[name][1]}" if host else f"unix@{places[name]}"
        config.append(LISTEN.format(name=name, bind=f"{bind} {tls}", server=server, options=options))

    tcp, tcp6, local = f"127.0.0.1:{tram.port}", f"[::1]:{tram.port6}", f"unix@{tram.path}"
    tlvs = "send-proxy-v2 proxy-v2-options unique-id,crc32c"
    listen("v1", "127.0.0.1", tcp, "send-proxy")
    listen("v2", "127.0.0.1", tcp6, tlvs)
    listen("v1-to-unix", "127.0.0.1", local, "send-proxy")
    listen("v2-to-unix", "127.0.0.1", local, tlvs)
    listen("v1-of-ipv6", "::1", tcp6, "send-proxy")
    listen("v2-of-ipv6", "::1", tcp, tlvs)
    listen("v1-of-unix", None, tcp, "send-proxy")
    listen("v2-of-unix", None, tcp, tlvs)
    listen("v1-checks", "127.0.0.1", tcp, "send-proxy check inter 20ms\n    option httpchk GET /check-v1")
    listen("v2-checks", "127.0.0.1", tcp, "send-proxy-v2 check inter 20ms\n    option httpchk GET /check-v2")
    if context:
        listen("v2-tls", "127.0.0.1", tcp, "send-proxy-v2-ssl-cn proxy-v2-options authority,unique-id,ssl,cert-cn",
               tls=f"ssl crt {work}/both.pem alpn http/1.0")
    for name, host in ("accepts", "127.0.0.1"), ("accepts6", "::1"), ("accepts-unix", None):
        places[name] = (host, ports.pop()) if host else str(work / "accepts.sock")
        bind = f"{host}:{places[name][1]}" if host else f"unix@{places[name]}"
        config.append(TELL.format(name=name, bind=bind))
    (work / "haproxy.cfg").write_text("".join(config))
    server = stranger(places["accepts-unix"], "haproxy", "-db", "-f", "haproxy.cfg")

    for name in "v1", "v1-to-unix":
        in_front(f"haproxy {name}", places[name], source=("127.0.0.7", 0))
    for name in "v2", "v2-to-unix":
        told = in_front(f"haproxy {name}", places[name], source=("127.0.0.7", 0))
        check(len(told) == 1 and told[0].startswith("unique_id=id-127.0.0.7-"), f"haproxy {name}: {told}")
    in_front("haproxy v1-of-ipv6", places["v1-of-ipv6"])
    told = in_front("haproxy v2-of-ipv6", places["v2-of-ipv6"])
    check(len(told) == 1 and told[0].startswith("unique_id=id-::1-"), f"haproxy v2-of-ipv6: {told}")
    # It speaks for itself: a client of a Unix socket has no address that it could tell.
    for name in "v1-of-unix", "v2-of-unix":
        told, _ = ask(places[name])
        check(told[1] == tcp and told[0].startswith("127.0.0.1:"), f"haproxy {name}: {told}")
    for version in "v1", "v2":
        told = tram.told_of(f"/check-{version}")
        check(told[1:] == [tcp] and told[0].startswith("127.0.0.1:"), f"haproxy {version}, its own checks: {told}")
    if context:
        told = in_front("haproxy v2-tls", places["v2-tls"], source=("127.0.0.7", 0), context=context)
        values = dict(value.split("=", 1) for value in told)
        check(values.get("authority") == "tram.test" and values.get("alpn") == "http/1.0" and "unique_id" in values and
              re.match(r"%01.*TLSv1\.", values.get("ssl", "")), f"haproxy v2-tls: {told}")
    tram_in_front("haproxy", places["accepts"], places["accepts6"], places["accepts-unix"])
    server.kill()


# ---- nginx ----

NGINX = """
daemon off; master_process off; pid {work}/nginx.pid; error_log {work}/nginx.log;
{module}
events {{ }}
http {{
    access_log off;
    client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
    server {{
        listen 127.0.0.1:{port} proxy_protocol;
        listen [::1]:{port6} proxy_protocol;
        listen unix:{work}/nginx.sock proxy_protocol;
        set_real_ip_from 127.0.0.1; set_real_ip_from ::1; set_real_ip_from unix:; real_ip_header proxy_protocol;
        location / {{
            return 200 "$remote_addr $remote_port $proxy_protocol_server_addr $proxy_protocol_server_port";
        }}
    }}
}}
{stream}
"""
STREAM = """
stream {{
    proxy_protocol on;
    server {{ listen 127.0.0.1:{to_tcp}; proxy_pass 127.0.0.1:{port}; }}
    server {{ listen 127.0.0.1:{to_unix}; proxy_pass unix:{path}; }}
    server {{ listen [::1]:{of_ipv6}; proxy_pass [::1]:{port6}; }}
    server {{ listen unix:{work}/stream.sock; proxy_pass 127.0.0.1:{port}; }}
}}
"""


def nginx(tram):
    if not shutil.which("nginx"):
        print("skipped: no nginx here")
        return
    port, port6, *others = own_ports()
    ports = dict(zip(("to_tcp", "to_unix", "of_ipv6"), others))
    module = stream = ""
    if STREAM_MODULE.exists():
        module = f"load_module {STREAM_MODULE};"
        stream = STREAM.format(work=work, port=tram.port, port6=tram.port6, path=tram.path, **ports)
    (work / "nginx.conf").write_text(NGINX.format(work=work, port=port, port6=port6, module=module, stream=stream))
    server = stranger(str(work / "nginx.sock"), "nginx", "-p", work, "-c", work / "nginx.conf")
    tram_in_front("nginx", ("127.0.0.1", port), ("::1", port6), str(work / "nginx.sock"))
    if stream:
        in_front("nginx's stream", ("127.0.0.1", ports["to_tcp"]), source=("127.0.0.7", 0))
        in_front("nginx's stream to Unix", ("127.0.0.1", ports["to_unix"]), source=("127.0.0.7", 0))
        in_front("nginx's stream of IPv6", ("::1", ports["of_ipv6"]))
        told, _ = ask(str(work / "stream.sock"))
        check(told[1] == f"127.0.0.1:{tram.port}" and told[0].startswith("127.0.0.1:"),
              f"nginx's stream of Unix (UNKNOWN): {told}")
    else:
        print("skipped: nginx has no stream module here")
    server.kill()


# ---- tram in front ----

def client(*arguments):
    done = subprocess.run([program, "client", *(str(argument) for argument in arguments)], capture_output=True,
                          timeout=PATIENCE, check=False)
    return (done.stdout.partition(b"\r\n\r\n")[2] if done.returncode == 0 else done.stderr).decode().split()


def tram_in_front(name, *places):
    headers = ["192.0.2.1", "65535", "198.51.100.7", "443"], ["2001:db8::1", "1", "2001:db8::ffff", "65000"]
    for place in places:
        address = place if isinstance(place, tuple) else (place, "")
        for version in 1, 2:
            for header in headers:
                told = client(version, *address, *header)
                check(told == header, f"tram, version {version}, to {name} at {place}: {told}")
            told = client(version, *address)
            ours = [] if isinstance(place, str) and name == "haproxy" else told # which has no text for Unix
            check(told == ours and told[:1] not in (["192.0.2.1"], ["2001:db8::1"], ["interop_proxy:"]),
                  f"tram, version {version}, speaks for itself to {name} at {place}: {told}")


def main():
    if not has_ipv6():
        print("no IPv6 here")
        return 77
    compile_program("interop_proxy", work)
    tram = Tram()
    curl(tram)
    haproxy(tram)
    nginx(tram)
    tram.end()
    print(f"{len(failures)} failures")
    return 1 if failures else 0


try:
    result = main()
finally:
    for each in started:
        each.kill()
        each.wait()
    shutil.rmtree(work, ignore_errors=True)
sys.exit(result)
