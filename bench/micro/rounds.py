"""What bench/post, bench/timers and bench/idle share: alternated rounds, quiet machines, tables.

Only ratios within a round mean anything on a small shared machine. A round runs every program once, one after the
other; it counts if nobody else used the CPUs meanwhile. Where too few rounds were quiet, the least disturbed ones are
taken, and the report says so.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("TRAM_BENCH_BUILD", os.path.join(ROOT, "build", "bench"))
DISTURBED = 0.05  # of a run's CPU time used by others: too much
PREFIX = []  # what starts each program
TICK = os.sysconf("SC_CLK_TCK")


def arguments(description, rounds, **options):
    """What all of them take, and options of a program's own: name=(what it takes, what it does)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="3 short rounds: shows that it works, proves nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--rounds", type=int, default=0, metavar="N", help=f"quiet rounds to take (default {rounds})")
    parser.add_argument("--realtime", action="store_true",
                        help="give the programs real-time priority (as root): for a machine that others use meanwhile")
    parser.add_argument("--only", metavar="SCENARIO", help="a comma-separated list")
    for name, (takes, text) in options.items():
        parser.add_argument(f"--{name}", metavar=takes, help=text)
    given = parser.parse_args()
    given.rounds = given.rounds or (3 if given.quick else rounds)
    if given.realtime and len(os.sched_getaffinity(0)) < 2:
        parser.error("--realtime needs two CPUs: threads that spin at real-time priority would leave this one to nobody else")
    if given.realtime:
        PREFIX.extend(["chrt", "-f", "10"])
    return given


def build(kind, libraries):
    """Builds the programs as users build the library: Release, static. Returns the libraries that are there."""
    configure = ["cmake", "-S", ROOT, "-B", BUILD, "-DCMAKE_BUILD_TYPE=Release", "-DTRAM_BENCH=ON",
                 "-DTRAM_TESTS=OFF", "-DTRAM_EXAMPLES=OFF", "-DTRAM_PROGRAMS=OFF"]
    if not os.path.exists(os.path.join(BUILD, "CMakeCache.txt")):
        configure += ["-G", "Ninja"]
    missing = re.findall(rf"^-- micro: no {kind}-([\w-]+):.*$", run_logged(configure), re.M)
    for name in missing:
        print(f"no {name}: its package is not installed; scripts/bootstrap --bench does it", file=sys.stderr)
    libraries = [name for name in libraries if name not in missing]
    run_logged(["cmake", "--build", BUILD, "--target", *[f"micro-{kind}-{name}" for name in libraries]])
    return libraries


def run_logged(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed\n{done.stdout}")
    return done.stdout


def machine():
    def first(path, key):
        with open(path) as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "?")
    return f"{os.cpu_count()} x {first('/proc/cpuinfo', 'model name')}, Linux {os.uname().release}"


def busy_seconds():
    """CPU time that all processes of the machine have used, and what the host took away."""
    with open("/proc/stat") as lines:
        user, nice, system, _, _, irq, softirq, steal = map(int, next(lines).split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def own_seconds():
    total = 0
    for who in resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN:
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


class Watch:
    """The share of the CPUs that others used between begin and end."""

    def __init__(self):
        self.busy, self.own, self.time = busy_seconds(), own_seconds(), time.monotonic()

    def others(self):
        if PREFIX:
            return 0  # they waited
        others = busy_seconds() - self.busy - (own_seconds() - self.own)
        # Either clock moves in steps of a tick, so that one or two of them mean nothing.
        others = max(0, others - 2 / TICK)
        return others / ((time.monotonic() - self.time) * os.cpu_count())


def run_program(program, *args):
    """The figures that a program tells: lines of a name and a number."""
    command = [*PREFIX, os.path.join(BUILD, "bench", "micro", program), *map(str, args)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return {name: float(value) for name, value in (line.split() for line in done.stdout.splitlines())}


def rounds(run, names, wanted, say):
    """Runs run(name) for all names in alternation until `wanted` quiet rounds are there. Returns a list of
    dictionaries by name, and how many of them were disturbed after all."""
    kept = []
    for number in range(wanted * 4):
        watch = Watch()
        order = names if number % 2 == 0 else names[::-1]
        figures = {name: run(name) for name in order}
        figures = {name: figures[name] for name in names}
        kept.append((watch.others(), number, figures))
        quiet = sum(1 for others, _, _ in kept if others <= DISTURBED)
        say(f"round {number + 1}: others used {kept[-1][0]:.0%} of the CPUs, {quiet} of {wanted} quiet")
        if quiet >= wanted:
            break
    kept = sorted(kept)[:wanted]
    disturbed = sum(1 for others, _, _ in kept if others > DISTURBED)
    return [figures for _, _, figures in sorted(kept, key=lambda entry: entry[1])], disturbed


def median(values):
    return statistics.median(values)


def ratio(results, figure, name, other):
    """Median over the rounds of name's figure to other's."""
    return median([one[name][figure] / one[other][figure] for one in results])


def best(results, figure, name, others):
    """The ratio to the best of the others, round by round."""
    return median([one[name][figure] / min(one[other][figure] for other in others) for one in results])


def table(head, rows):
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print("  ".join(cells).rstrip())


def spread(values, form="{:.1f}"):
    return f"{form.format(min(values))}..{form.format(max(values))}"


class Report:
    """Collects figures and targets; prints them as text or as JSON."""

    def __init__(self, title, given):
        self.given, self.document = given, {"title": title, "machine": machine(), "rounds": given.rounds,
                                            "quick": given.quick, "realtime": given.realtime, "scenarios": {}, "targets": []}
        if not given.json:
            print(f"{title}: {self.document['machine']}; {given.rounds} rounds"
                  + (", at real-time priority" if given.realtime else ""))

    def say(self, text):
        if not self.given.json and sys.stderr.isatty():
            print(f"  {text}", end="\r", file=sys.stderr)

    def scenario(self, name, text, results, disturbed, figure, unit, versus):
        """One table: each program's median, spread and ratio to `versus` of the same round."""
        names = list(results[0])
        versus = versus if versus in names else names[0]
        entry = {"unit": unit, "disturbed_rounds": disturbed, "programs": {}}
        rows = []
        for program in names:
            values = [one[program][figure] for one in results]
            extra = {key: median([one[program][key] for one in results]) for key in results[0][program]}
            entry["programs"][program] = {**extra, "min": min(values), "max": max(values),
                                          f"x_{versus}": ratio(results, figure, program, versus)}
            rows.append([program, f"{median(values):.2f}", spread(values), f"{ratio(results, figure, program, versus):.2f}"]
                        + [f"{extra[key]:.0f}" if key in extra else "?" for key in results[0][names[0]] if key != figure])
        self.document["scenarios"][name] = entry
        if not self.given.json:
            extras = [key for key in results[0][names[0]] if key != figure]
            print(f"\n{text}" + (f" ({disturbed} of {len(results)} rounds were disturbed)" if disturbed else ""))
            table([name, unit, "spread", f"x {versus}", *extras], rows)

    def target(self, text, value, limit, at_least=False):
        if self.given.quick:
            return
        met = value >= limit if at_least else value <= limit
        self.document["targets"].append({"target": text, "value": value, "limit": limit, "met": met})

    def end(self):
        if self.given.json:
            json.dump(self.document, sys.stdout, indent=1)
            print()
            return
        print()
        for target in self.document["targets"]:
            print(f"{'met   ' if target['met'] else 'MISSED'}  {target['target']}: {target['value']:.2f}")
