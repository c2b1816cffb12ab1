"""Counting a server's system calls and instructions under a tool, so that two runs give the same numbers.

A `run(prefix)` runs the server under the tool that `prefix` starts, with as many requests as it stands for.
"""

import collections
import functools
import os
import pathlib
import re
import subprocess
import sys
import tempfile

# Without valgrind these are no system calls: valgrind hides the vDSO from the program.
VDSO = {"clock_gettime", "gettimeofday", "time", "getcpu", "clock_getres"}
TRIES = 6
# Two runs agree if they differ by no more than this: starting threads is never quite the same.
SLACK_COUNT = 10
SLACK_SHARE = 0.0005


class Unavailable(Exception):
    """This machine does not let us count that."""


# ---- Keeping step -------------------------------------------------------------------------------------------

def patient(cpu):
    """The server's side: it never takes the CPU from the load because something came, so requests come in rounds."""
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def highest(cpu):
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))


@functools.cache
def scheduling():
    """(for the server, for the load): the load always goes first on the CPU that they share."""
    cpu = max(os.sched_getaffinity(0))
    pin = functools.partial(os.sched_setaffinity, 0, {cpu})
    try:
        subprocess.run(["true"], check=True, preexec_fn=functools.partial(highest, cpu))
    except subprocess.SubprocessError:
        return functools.partial(patient, cpu), pin
    return pin, functools.partial(highest, cpu)


def pid_below(tool, program):
    """The server that a tool started as its child; the tool itself where it turned into the server."""
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            executable = os.readlink(entry / "exe")
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == tool and executable == str(program):
            return int(entry.name)
    return tool


def steady(measure, total, what, sure=True):
    """
    The same run again until two agree, and the smaller of these two. On a busy machine it happens that the
    load is held up in the middle of a round, and the server wakes for a part of it. Not `sure`: one run will do.
    """
    earlier = []
    if not sure:
        return measure()
    while len(earlier) < TRIES:
        result = measure()
        for other in earlier:
            if abs(total(result) - total(other)) <= max(SLACK_COUNT, SLACK_SHARE * total(other)):
                return min(result, other, key=total)
        earlier.append(result)
    print(f"counts: {what}: no two of {TRIES} runs agree; taking the smallest", file=sys.stderr)
    return min(earlier, key=total)


def share(small, large, requests, slack=0):
    """What one of the requests between two runs has of each count."""
    return {key: (large[key] - small[key]) / requests for key in sorted(large | small)
            if abs(large[key] - small[key]) > slack}


# ---- System calls -------------------------------------------------------------------------------------------

def calls_by_strace(run):
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "calls"
        run(["strace", "-f", "-qq", "-c", "-o", str(output)])
        calls = collections.Counter()
        for line in output.read_text().splitlines():
            words = line.split()
            if len(words) >= 5 and words[0][0].isdigit() and words[-1] != "total":
                calls[words[-1]] += int(words[3])
    return calls


SYSCALL = re.compile(r"SYSCALL\[\d+,\d+\]\( *\d+\) (?:sys_)?(\w+)")


def calls_by_valgrind(run):
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "calls"
        run(["valgrind", "--tool=none", "--trace-syscalls=yes", f"--log-file={output}"])
        calls = collections.Counter(SYSCALL.findall(output.read_text()))
    return collections.Counter({name: count for name, count in calls.items() if name not in VDSO})


def works(*command):
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@functools.cache
def tracer():
    if works("strace", "-f", "-qq", "-c", "-o", "/dev/null", "true"):
        return calls_by_strace
    if works("valgrind", "-q", "--tool=none", "true"):
        print("counts: strace is missing or may not trace here; system calls are counted by valgrind",
              file=sys.stderr)
        return calls_by_valgrind
    raise Unavailable("system calls: neither strace nor valgrind works here")


# ---- Instructions -------------------------------------------------------------------------------------------

# Instructions by (binary, function), and by (binary, address); calls by function; names of the addresses.
Profile = collections.namedtuple("Profile", "functions addresses calls names")


def read_profile(path):
    profile = Profile(collections.Counter(), collections.Counter(), collections.Counter(), {})
    binary = function = called = None
    inclusive = False
    for line in path.read_text().splitlines():
        if line.startswith("0x"):
            if inclusive: # the cost of a call, counted in the called function already
                inclusive = False
                continue
            address, *_, cost = line.split()
            profile.functions[binary, function] += int(cost)
            profile.addresses[binary, int(address, 16)] += int(cost)
            profile.names[binary, int(address, 16)] = function
        elif line.startswith("ob="):
            binary = line[3:]
        elif line.startswith("fn="):
            function = re.sub(r"'\d+$", "", line[3:])
        elif line.startswith("cfn="):
            called = re.sub(r"'\d+$", "", line[4:])
        elif line.startswith("calls="):
            profile.calls[called] += int(line[6:].split()[0])
            inclusive = True
    return profile


def profile_by_callgrind(run):
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "profile"
        run(["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={output}", "--dump-instr=yes",
             "--dump-line=no", "--compress-strings=no", "--compress-pos=no"])
        return read_profile(output)
