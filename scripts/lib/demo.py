#!/usr/bin/env python3
"""Runs the workloads of scripts/demo and prints their table.

Every workload gets a server of its own: the server's totals at exit are then this workload's, and tell
how it was spread over the workers.
"""

import argparse
import json
import os
import re
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time

# What is shown, and the options of tram-load that make it. {rate} is half of what the closed loop with
# as many connections reached: an open loop tells an honest latency only below saturation.
WORKLOADS = [
    ("64 B, 50 connections", ["--connections", "50", "--size", "64", "--pipeline", "1"]),
    ("64 B, 1,000 connections", ["--connections", "1000", "--size", "64", "--pipeline", "1"]),
    ("64 B, 50 connections, 16 deep", ["--connections", "50", "--size", "64", "--pipeline", "16"]),
    ("16 KiB, 50 connections", ["--connections", "50", "--size", "16384", "--pipeline", "1"]),
    ("64 B, 50 connections, {rate}/s", ["--connections", "50", "--size", "64", "--rate", "{rate}"]),
    ("connect, 64 B, close; 50 at a time", ["--connections", "50", "--size", "64", "--churn"]),
    ("TLS 1.3, 64 B, 50 connections", ["--connections", "50", "--size", "64", "--tls"]),
]
LISTENING = re.compile(r"^listening on (\S+):(\d+) workers=(\d+) backend=(\S+) shard=(\S+)$")
WORKER = re.compile(r"^worker (\d+): (.*)$")


class DemoError(Exception):
    pass


class Server:
    """tram-echo, from its first line to the totals that it prints at its end."""

    def __init__(self, program, workers, options):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [program, "--host", "127.0.0.1", "--port", "0", "--workers", str(workers), *options],
            stdout=subprocess.PIPE, stderr=self.errors, stdin=subprocess.DEVNULL, text=True)
        try:
            line = self._first_line(10)
            match = LISTENING.match(line)
            if not match:
                raise DemoError(f"tram-echo said {line!r} instead of where it listens\n{self._stderr()}")
        except BaseException:
            self.kill()
            raise
        self.host, self.port, self.workers, self.backend, self.shard = match.groups()

    def _stderr(self):
        self.errors.seek(0)
        return self.errors.read().strip()

    def _first_line(self, seconds):
        # Read byte by byte below the text layer, which would wait for more than there is.
        end, line = time.monotonic() + seconds, b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0, end - time.monotonic())):
                    raise DemoError(f"tram-echo did not listen within {seconds} s\n{self._stderr()}")
                byte = os.read(self.process.stdout.fileno(), 1)
                if not byte:
                    raise DemoError(f"tram-echo ended before it listened\n{self._stderr()}")
                line += byte
        return line.decode().rstrip("\n")

    def stop(self):
        """SIGTERM, then the totals per worker as a list of dictionaries."""
        self.process.send_signal(signal.SIGTERM)
        try:
            output, _ = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise DemoError("tram-echo did not end within 30 s of SIGTERM") from None
        if self.process.returncode != 0:
            raise DemoError(f"tram-echo ended with {self.process.returncode}\n{self._stderr()}")
        totals = []
        for line in output.splitlines():
            match = WORKER.match(line)
            if match:
                pairs = (field.split("=", 1) for field in match.group(2).split() if "=" in field)
                totals.append({key: int(value) for key, value in pairs if value.isdigit()})
        return totals

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def certificate(folder):
    """A certificate for 127.0.0.1 and its key, as two files; None where there is no openssl to make them."""
    chain, key = os.path.join(folder, "chain.pem"), os.path.join(folder, "key.pem")
    try:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", "2", "-subj", "/CN=tram demo", "-addext", "subjectAltName=IP:127.0.0.1",
                        "-keyout", key, "-out", chain], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return chain, key


def load(program, server, workers, seconds, options):
    """One run of tram-load: its report, and what it had to say on stderr."""
    command = [program, "--host", server.host, "--port", server.port, "--workers", str(workers),
               "--duration", str(seconds), "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               stdin=subprocess.DEVNULL, text=True)
    try:
        output, said = process.communicate(timeout=seconds + 60)
    except BaseException:
        process.kill()
        process.wait()
        raise
    said = said.strip()
    if process.returncode != 0:
        raise DemoError(f"{' '.join(command)}\nended with {process.returncode}\n{said}")
    return json.loads(output), said


def duration(nanoseconds):
    """Three figures and a unit: 41.2 µs, 3.05 ms, 1.20 s."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            value = nanoseconds / size
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    return f"{nanoseconds} ns"


def spread(totals):
    """Each worker's share of the bytes, which here is its share of the requests."""
    counts = [worker.get("bytes_in", 0) for worker in totals]
    whole = sum(counts)
    if not whole:
        return "-"
    if len(counts) > 4: # the least and the most loaded of many say enough
        return f"{100 * min(counts) / whole:.1f} to {100 * max(counts) / whole:.1f} %"
    return " / ".join(f"{100 * count / whole:.0f}" for count in counts) + " %"


def table(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) if column == 0 else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("tools", help="the folder with tram-echo and tram-load")
    arguments = parser.parse_args()
    echo, loader = (os.path.join(arguments.tools, name) for name in ("tram-echo", "tram-load"))
    seconds = int(arguments.seconds) if arguments.seconds.is_integer() else arguments.seconds
    workers = len(os.sched_getaffinity(0))

    # A thousand connections are more than the 1,024 descriptors that a shell commonly allows.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Ctrl-C and a kill both unwind this program, which then ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    header = ["workload", "requests/s", "p50", "p99", "p99.9", "max", "errors",
              "share of each worker"]
    rows, remarks, failed, rate, description = [header], [], False, None, ""
    folder = tempfile.TemporaryDirectory(prefix="tram-demo-")
    has_tls = os.path.exists(os.path.join(arguments.tools, "..", "libtram-tls.a"))
    identity = certificate(folder.name) if has_tls else None
    for name, options in WORKLOADS:
        secured = []
        if "--tls" in options:
            if not identity:
                remarks.append(f"{name}: left out: " + ("there is no openssl" if has_tls else "built without TLS"))
                continue
            secured = ["--tls-cert", identity[0], "--tls-key", identity[1]]
            options = [*options, "--ca", identity[0]]
        if "{rate}" in name:
            if rate is None:
                continue
            name = name.format(rate=f"{rate:,}")
            options = [option.format(rate=rate) for option in options]
        print(f"demo: {name} ...", file=sys.stderr, flush=True)
        server = None
        try:
            server = Server(echo, workers, secured)
            description = f"{server.workers} workers, backend {server.backend}, shard {server.shard}"
            report, said = load(loader, server, workers, seconds, options)
            totals = server.stop()
        except (DemoError, ValueError) as error:
            failed = True
            rows.append([name, "FAILED"] + [""] * (len(header) - 2))
            remarks.append(f"{name}: {error}")
            continue
        finally:
            if server:
                server.kill()
        errors = sum(count for count in report["errors"].values() if isinstance(count, int))
        failed = failed or errors > 0
        latency = report["latency_ns"]
        rows.append([name, f"{report['requests_per_second']:,.0f}",
                     *(duration(latency[key]) for key in ("p50", "p99", "p99_9", "max")),
                     str(errors), spread(totals)])
        if said:
            remarks.append(f"{name}: {said}")
        if rate is None:
            rate = max(1000, int(report["requests_per_second"] / 2) // 1000 * 1000)

    print()
    print(f"tram-echo: {description}; tram-load on the same {workers} CPUs, {seconds} s each")
    print()
    table(rows)
    for remark in remarks:
        print(f"\n{remark}")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
