#!/usr/bin/env python3
"""tram-echo --metrics serves what Prometheus understands: read by a strict parser of the text format 0.0.4, and by
`promtool check metrics` where that is installed. Counters rise by what was done between two looks, and never fall."""

import collections
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

BUILD = pathlib.Path(os.environ.get("TRAM_BUILD_DIR", "build/release")).resolve()
ECHO = BUILD / "tools/tram-echo"
PATIENCE = 60
TYPES = {"counter", "gauge", "histogram", "summary"}
UNITS = ("_seconds", "_bytes")

failures = []


def check(condition, text):
    if not condition:
        failures.append(text)
        print("FAILED:", text, file=sys.stderr)


# ---- The format -----------------------------------------------------------------------------------------------

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"')
VALUE = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]Inf|NaN")
Family = collections.namedtuple("Family", "name type samples")


class Malformed(Exception):
    pass


def parse_labels(text):
    """{"a": "1"} and what follows the closing brace; "{a="1",b="2"} 3" without blanks inside."""
    labels = {}
    at = 1
    while True:
        match = LABEL.match(text, at)
        if not match:
            raise Malformed(f"no label at {text[at:]!r}")
        if match[1] in labels:
            raise Malformed(f"label {match[1]} twice in {text!r}")
        labels[match[1]] = re.sub(r"\\(.)", lambda escape: "\n" if escape[1] == "n" else escape[1], match[2])
        at = match.end()
        if text[at:at + 1] == "}":
            return labels, text[at + 1:]
        if text[at:at + 1] != ",":
            raise Malformed(f"neither comma nor brace at {text[at:]!r}")
        at += 1


def parse_sample(line):
    match = NAME.match(line)
    if not match:
        raise Malformed(f"no name: {line!r}")
    rest = line[match.end():]
    labels, rest = parse_labels(rest) if rest.startswith("{") else ({}, rest)
    if not rest.startswith(" ") or not VALUE.fullmatch(rest[1:]):
        raise Malformed(f"no value: {line!r}")
    return match[0], labels, float(rest[1:])


def belongs(name, family):
    suffixes = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}.get(family.type, ("",))
    return any(name == family.name + suffix for suffix in suffixes)


def parse(body):
    """{name: Family}; every family has its HELP and TYPE, once, and its samples right after them."""
    text = body.decode("utf-8")
    if not text.endswith("\n") or "\r" in text or "\n\n" in text:
        raise Malformed("lines end with one newline each, the last one too")
    families, seen, helped, current = {}, set(), None, None
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            helped = line.split(" ", 3)[2]
            if helped in families or not NAME.fullmatch(helped) or len(line.split(" ", 3)) != 4:
                raise Malformed(f"a second head, or a bad one: {line!r}")
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            if name != helped or kind not in TYPES:
                raise Malformed(f"not the type of what was just explained: {line!r}")
            current = families[name] = Family(name, kind, [])
        else:
            name, labels, value = parse_sample(line)
            series = (name, tuple(sorted(labels.items())))
            if current is None or not belongs(name, current):
                raise Malformed(f"not of the family above it: {line!r}")
            if series in seen:
                raise Malformed(f"twice: {line!r}")
            seen.add(series)
            current.samples.append((name, labels, value))
    return families


def check_names(families):
    """https://prometheus.io/docs/practices/naming: what rises ends in _total, and units are the base ones."""
    for family in families.values():
        check(family.name.startswith("tram_"), f"{family.name} is not tram's")
        check(family.samples, f"{family.name} has no sample")
        check((family.type == "counter") == family.name.endswith("_total"), f"{family.name} is a {family.type}")
        base = family.name.removesuffix("_total")
        check(family.type not in ("histogram", "summary") or base.endswith(UNITS), f"{family.name} has no unit")
        check(not re.search(r"_(ns|ms|us|milliseconds|kilobytes)(_|$)", base), f"{family.name}: not a base unit")
        check(all(value >= 0 for _, _, value in family.samples), f"{family.name} is negative")


def check_histogram(family):
    rows = collections.defaultdict(lambda: {"buckets": [], "count": None, "sum": None})
    for name, labels, value in family.samples:
        key = tuple(sorted((label, text) for label, text in labels.items() if label != "le"))
        if name.endswith("_bucket"):
            rows[key]["buckets"].append((float(labels["le"]), value))
        else:
            rows[key][name.rpartition("_")[2]] = value
    for key, row in rows.items():
        bounds, counts = zip(*row["buckets"])
        check(list(bounds) == sorted(set(bounds)) and bounds[-1] == float("inf"), f"{family.name}{key}: bounds")
        check(list(counts) == sorted(counts), f"{family.name}{key} is not cumulative")
        check(counts[-1] == row["count"], f"{family.name}{key}: +Inf is not the count")
        check(row["sum"] is not None, f"{family.name}{key} has no sum")


def check_parser():
    """What a strict parser must refuse."""
    head = "# HELP a b\n# TYPE a gauge\n"
    parse((head + 'a 1\na{l="\\\\\\"\\n"} 2\n').encode())
    for bad in (head + "a 1", head + "b 1\n", head + "a  1\n", head + 'a{l="\\x"} 1\n', head + 'a{l="1",} 1\n',
                head + 'a{l="1"}1\n', head + "a 1\na 1\n", head + "a one\n", head + head, "a 1\n",
                "# TYPE a gauge\na 1\n", head + 'a{l=1} 1\n', head + 'a{} 1\n', head + 'a{l="1" } 1\n'):
        try:
            parse(bad.encode())
        except Malformed:
            continue
        check(False, f"the parser takes {bad!r}")


# ---- The program ----------------------------------------------------------------------------------------------

def fetch(url, method="GET"):
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=PATIENCE) as answer:
        check(answer.status == 200, f"{answer.status}")
        check(answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8",
              f"content type {answer.headers['Content-Type']}")
        return answer.read()


def check_body(body):
    families = parse(body)
    check_names(families)
    check_histogram(families["tram_loop_lag_seconds"])
    return families


def totals(families):
    """Counters, summed over their labels; counts of histograms too."""
    sums = collections.Counter()
    for family in families.values():
        for name, _, value in family.samples:
            if family.type == "counter" or name.endswith(("_count", "_bucket")):
                sums[name] += value
    return sums


def echo(port, count):
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        for _ in range(count):
            client.sendall(b"x" * 100)
            received = 0
            while received < 100:
                received += len(client.recv(100 - received))


def check_values(port, url):
    before = totals(check_body(fetch(url)))
    for _ in range(5):
        echo(port, 20)
    families = check_body(fetch(url))
    after = totals(families)
    for name, value in before.items():
        check(after[name] >= value, f"{name} fell from {value} to {after[name]}")
    check(after["tram_received_bytes_total"] - before["tram_received_bytes_total"] >= 5 * 20 * 100, "bytes received")
    # The second look is one more.
    check(after["tram_accepted_connections_total"] - before["tram_accepted_connections_total"] == 6, "accepted")
    workers = {labels["worker"] for _, labels, _ in families["tram_ticks_total"].samples}
    check(workers == {"0", "1"}, f"workers {workers}")
    servers = {labels["server"] for _, labels, _ in families["tram_server_connections"].samples}
    check(servers == {f"127.0.0.1:{port}"}, f"servers {servers}")
    shard = families["tram_server_info"].samples[0][1]["shard"]
    check(shard == "handoff", f"shard {shard}")


def check_refusals(url):
    for method, place, code in (("GET", url + "/no", 404), ("POST", url, 405)):
        try:
            urllib.request.urlopen(urllib.request.Request(place, method=method), timeout=PATIENCE)
            check(False, f"{method} {place} was answered")
        except urllib.error.HTTPError as error:
            check(error.code == code, f"{method} {place}: {error.code}")
    check(fetch(url, "HEAD") == b"", "HEAD has a body")


def check_with_curl(url):
    if not shutil.which("curl"):
        print("there is no curl")
        return
    body = subprocess.run(["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", str(PATIENCE),
                           url], check=True, stdout=subprocess.PIPE).stdout
    check_body(body)


def check_with_promtool(url):
    if not shutil.which("promtool"):
        print("there is no promtool (Debian's package is prometheus): only this file's parser has looked")
        return
    result = subprocess.run(["promtool", "check", "metrics"], input=fetch(url), capture_output=True, check=False)
    said = (result.stdout + result.stderr).decode()
    check(result.returncode == 0 and not said, f"promtool: {result.returncode}: {said}")
    print("promtool agrees")


def check_a_taken_port(url):
    port = re.search(r":(\d+)/", url)[1]
    result = subprocess.run([ECHO, "--port", "0", "--metrics", port], capture_output=True, text=True, check=False,
                            timeout=PATIENCE)
    check(result.returncode == 1 and f"127.0.0.1:{port}" in result.stderr,
          f"a taken port: {result.returncode}, {result.stderr!r}")


def main():
    os.environ["no_proxy"] = "*"
    check_parser()
    with tempfile.TemporaryFile("w+") as errors:
        server = subprocess.Popen([ECHO, "--port", "0", "--metrics", "0", "--workers", "2", "--shard", "handoff"],
                                  stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            first, second = server.stdout.readline(), server.stdout.readline()
            listening = re.match(r"listening on 127\.0\.0\.1:(\d+) ", first)
            metrics = re.fullmatch(r"metrics on (http://127\.0\.0\.1:\d+/metrics)\n", second)
            if not listening or not metrics:
                raise SystemExit(f"tram-echo said {first!r}, {second!r}")
            port, url = int(listening[1]), metrics[1]
            check_values(port, url)
            check_refusals(url)
            check_with_curl(url)
            check_with_promtool(url)
            check_a_taken_port(url)
            server.terminate()
            server.communicate(timeout=PATIENCE)
            check(server.returncode == 0, f"tram-echo ended with {server.returncode}")
        finally:
            server.kill()
            server.wait()
            errors.seek(0)
            sys.stderr.write(errors.read())
    print("failed" if failures else "the metrics are well formed and right")
    return 1 if failures else 0


if not ECHO.exists():
    print(f"there is no {ECHO}: built with TRAM_PROGRAMS=OFF")
    sys.exit(77)
sys.exit(main())
