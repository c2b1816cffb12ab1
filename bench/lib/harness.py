"""What bench/run and bench/counts share: the programs, their build, a server from start to end."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/bench"
SERVERS = BUILD / "bench/servers"
LOAD = BUILD / "bench/load"
FLOOR = "bare_epoll"

# Name of each program (bench/servers/<name>), and what a table calls it.
LABELS = {
    "bare_epoll": "bare epoll",
    "tram": "tram",
    "libuv_try": "libuv, one buffer + uv_try_write",
    "libuv_guide": "libuv, as its guide does it",
    "libevent_bufferevent": "libevent bufferevent",
    "asio": "Boost.Asio",
}
# With --streams: those whose connections are tasks or coroutines.
STREAMS_LABELS = {
    "asio_coroutine": "Boost.Asio, coroutines",
    "tokio": "tokio",
}
# The same for echo servers behind TLS; their options are certificate()'s.
TLS_FLOOR = "openssl_tls"
TLS_LABELS = {
    "openssl_tls": "OpenSSL over epoll",
    "tram_tls": "tram, TLS",
    "libevent_tls": "libevent bufferevent_openssl",
    "asio_tls": "Boost.Asio ssl::stream",
}
LISTENING = re.compile(r"^listening on 127\.0\.0\.1:(\d+)$")


class BenchError(Exception):
    pass


def first_line(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()[0]
    except (FileNotFoundError, IndexError):
        return ""


def machine():
    """What figures depend on: the processor and who compiled, for whoever reads them later."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = re.findall(r"^model name\s*:\s*(.*)$", file.read(), re.M)
    return {"date": time.strftime("%Y-%m-%d"), "processor": names[0] if names else os.uname().machine,
            "cpus": len(os.sched_getaffinity(0)), "kernel": os.uname().release,
            "compiler": first_line(os.environ.get("CC", "gcc"), "--version")}


def versions():
    """Of tram and of the libraries it is compared with, as far as they are there."""
    header = (ROOT / "include/tram/version.h").read_text(encoding="utf-8")
    result = {"tram": re.search(r'VERSION_STRING "(.*)"', header).group(1)}
    for name in ("libuv", "libevent"):
        result[name] = first_line("pkg-config", "--modversion", name)
    boost = pathlib.Path("/usr/include/boost/version.hpp")
    if boost.exists():
        found = re.search(r'BOOST_LIB_VERSION "(.*)"', boost.read_text(encoding="utf-8"))
        result["Boost"] = found.group(1).replace("_", ".") if found else ""
    crates = sorted(pathlib.Path("/usr/share/cargo/registry").glob("tokio-1.*"))
    result["tokio"] = crates[-1].name.partition("-")[2] if crates else ""
    return {name: version for name, version in result.items() if version}


def pick(names, known, what):
    """The known ones among a comma-separated list; all if there is no list."""
    if names is None:
        return list(known)
    wanted = names.split(",")
    for name in wanted:
        if name not in known:
            raise BenchError(f"no such {what}: {name} (there are: {', '.join(known)})")
    return [name for name in known if name in wanted]


def run_logged(command, log):
    with open(log, "a", encoding="utf-8") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, check=False).returncode == 0


def build_targets(choose, source=None, folder=None, options=("-DCMAKE_BUILD_TYPE=Release",)):
    """Builds what `choose` makes of the programs that cannot be built, {name: why}."""
    folder = folder or BUILD
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "bench-build.log"
    log.write_text("")
    configure = ["cmake", "-S", str(source or ROOT), "-B", str(folder), "-DTRAM_BENCH=ON", "-DTRAM_TESTS=OFF",
                 "-DTRAM_PROGRAMS=OFF", "-DTRAM_EXAMPLES=OFF", *options]
    if not (folder / "CMakeCache.txt").exists():
        configure += ["-G", "Ninja"]
    good = run_logged(configure, log)
    skipped = dict(re.findall(r"^-- bench: no (\w+): (.*)$", log.read_text(), re.M))
    if not good or not run_logged(["cmake", "--build", str(folder), "--target", *choose(skipped)], log):
        sys.stderr.write("\n".join(log.read_text().splitlines()[-40:]) + "\n")
        raise BenchError(f"the build failed; all of it: {log}")
    return skipped


def build(programs):
    """Builds load and the servers; returns those that could be built, and why others could not."""
    skipped = build_targets(lambda missing: ["bench-load"] + [f"bench-server-{name}" for name in programs
                                                              if name not in missing])
    return [name for name in programs if name not in skipped], skipped


def certificate():
    """[chain, key]: files with a certificate that servers show, P-256, signed by itself; made once."""
    folder = BUILD / "certificate"
    chain, key = folder / "chain.pem", folder / "key.pem"
    if not chain.exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                               "-days", "3650", "-subj", "/CN=localhost", "-keyout", key, "-out", f"{chain}.new"],
                              capture_output=True, text=True, check=False)
        if made.returncode:
            raise BenchError(f"openssl req: {made.stderr}")
        os.rename(f"{chain}.new", chain)
    return [str(chain), str(key)]


class Server:
    """
    A server that listens: SERVERS / name, or another build of it. `prefix` is a tool that starts it; then `process`
    is the tool's.
    """

    def __init__(self, name, options=(), prefix=(), setup=None, program=None):
        self.name = name
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([*prefix, program or SERVERS / name, *options], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=self.errors, text=True, preexec_fn=setup)
        match = LISTENING.match(self.process.stdout.readline())
        if not match:
            self.kill()
            raise BenchError(f"{name} does not listen\n{self.said()}")
        self.port = match.group(1)

    def said(self):
        self.errors.seek(0)
        return self.errors.read().strip()

    def stop(self, pid=None):
        """SIGTERM, to `pid` where a tool stands before the server, and an orderly end."""
        os.kill(pid or self.process.pid, signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.name} did not end on SIGTERM") from None
        if code != 0:
            raise BenchError(f"{self.name} ended with {code}\n{self.said()}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def serving(*arguments, **options):
    server = Server(*arguments, **options)
    try:
        yield server
    finally:
        server.kill()


def load(server, options, setup=None):
    command = [LOAD, "--port", server.port, *options]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                            preexec_fn=setup)
    if result.returncode != 0:
        raise BenchError(f"{server.name}: {result.stderr.strip()}\n{server.said()}")
    return json.loads(result.stdout)


def main(function):
    """The function's exit code; a clear line instead of a traceback for what is no mistake of the script."""
    try:
        sys.exit(function())
    except BenchError as error:
        print(f"{os.path.basename(sys.argv[0])}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
