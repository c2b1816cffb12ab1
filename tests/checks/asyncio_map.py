#!/usr/bin/env python3
# tram-check: release-only
"""docs/asyncio-map.md has every public name of asyncio, and what it says of tram is there.

The names are those of this Python's dir(), and the ones below that came up to 3.13. A table of a class has what the
classes before it do not have. A row that says that there is something names it, and each name of tram in the map is
declared by a header; at the end each is renamed, in memory, and must be missed.
"""

import asyncio
import asyncio.subprocess
import inspect
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
sys.path.insert(0, str(ROOT / "tests/support"))
from headers import Headers  # noqa: E402

PAGE = ROOT / "docs/asyncio-map.md"
STATUS = {"same", "differs", "other way", "not yet", "none"}
# What 3.12 and 3.13 added.
ADDED = {
    "asyncio": {"EventLoop", "QueueShutDown", "create_eager_task_factory", "eager_task_factory"},
    "asyncio.Server": {"abort_clients", "close_clients"},
    "asyncio.Queue": {"shutdown"},
    "asyncio.Task": {"get_context"},
    "asyncio.Handle": {"get_context"},
}
# What later versions removed again.
OLD = re.compile(r"\w*ChildWatcher|[gs]et_child_watcher|\w*Policy|[gs]et_event_loop_policy|iscoroutinefunction")
# A table of the second has nothing that the first has.
BASES = {
    "asyncio.ReadTransport": "asyncio.BaseTransport", "asyncio.WriteTransport": "asyncio.BaseTransport",
    "asyncio.DatagramTransport": "asyncio.BaseTransport", "asyncio.SubprocessTransport": "asyncio.BaseTransport",
    "asyncio.Protocol": "asyncio.BaseProtocol", "asyncio.BufferedProtocol": "asyncio.BaseProtocol",
    "asyncio.DatagramProtocol": "asyncio.BaseProtocol", "asyncio.SubprocessProtocol": "asyncio.BaseProtocol",
    "asyncio.TimerHandle": "asyncio.Handle",
}
WANTED = {
    "asyncio", "asyncio.AbstractEventLoop", "asyncio.BaseTransport", "asyncio.BaseProtocol", "asyncio.Server",
    "asyncio.Handle", "asyncio.Future", "asyncio.Task", "asyncio.TaskGroup", "asyncio.Timeout", "asyncio.Runner",
    "asyncio.Lock", "asyncio.Event", "asyncio.Condition", "asyncio.Semaphore", "asyncio.Barrier", "asyncio.Queue",
    "asyncio.StreamReader", "asyncio.StreamWriter", "asyncio.subprocess.Process", *BASES,
}


def public(name):
    thing = asyncio
    for part in name.split(".")[1:]:
        thing = getattr(thing, part)
    names = {entry for entry in dir(thing) if not entry.startswith("_")}
    if inspect.ismodule(thing):
        names = {entry for entry in names if not inspect.ismodule(getattr(thing, entry))}
    return names


def expected(name):
    names = public(name) | ADDED.get(name, set())
    return names - expected(BASES[name]) if name in BASES else names


def tables(text):
    """Of each table of a class: its name, and rows of (name, tram, status, note)."""
    for match in re.finditer(r"^\| `([\w.]+)` \| tram \| status \| note \|\n\|[- |]+\|\n((?:\|.*\n)*)", text, re.M):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in match.group(2).splitlines()]
        yield match.group(1), rows


NAME = re.compile(r"\b((?:tram|TRAM)_\w+)(?<!_)(?!\w)(\(\))?") # not "tram_loop_create_…"


def undeclared(text, headers):
    """The names of tram in the map that no header declares; with () it is to be a function."""
    names, functions = headers.names, headers.functions
    return sorted({name + call for name, call in NAME.findall(text) if name not in (functions if call else names)})


def problems_of(text):
    found = {}
    for name, rows in tables(text):
        found[name] = [row[0].strip("`") for row in rows]
        for entry, tram, status, note in rows:
            if status not in STATUS:
                yield f"{name}: {entry}: no such status: {status}"
            elif status in ("same", "differs", "other way") and not re.search(r"`(tram|TRAM)_\w+(\(\))?`", tram):
                yield f"{name}: {entry}: {status}, but to what?"
            elif status in ("none", "not yet") and tram:
                yield f"{name}: {entry}: {status}, and yet {tram}"
            elif status in ("none", "differs") and not note:
                yield f"{name}: {entry}: {status}, but why?"
    for name in sorted(WANTED - set(found)):
        yield f"no table of {name}"
    for name, entries in found.items():
        names = expected(name)
        for entry in sorted(names - set(entries)):
            yield f"{name}: {entry} is not in the table"
        for entry in sorted(set(entries) - names):
            if not (sys.version_info >= (3, 14) and OLD.fullmatch(entry)):
                yield f"{name}: {entry} is no name of asyncio"
        if len(entries) != len(set(entries)):
            yield f"{name}: a name twice"


def main():
    text = PAGE.read_text()
    headers = Headers.of(ROOT)
    problems = list(problems_of(text)) + [f"no header declares {name}" for name in undeclared(text, headers)]
    for problem in problems:
        print(problem)
    # Does it find anything? A row less, and one that names nothing.
    row = re.search(r"^\| `pause_reading` .*\n", text, re.M).group()
    assert "asyncio.ReadTransport: pause_reading is not in the table" in problems_of(text.replace(row, ""))
    assert any("but to what?" in problem for problem in problems_of(text.replace("`tram_loop_stop()`", "")))
    # Each name, renamed where it is declared, and nowhere else.
    names = {name for name, _ in NAME.findall(text)} & headers.names
    for name in names:
        assert name in {missed.strip("()") for missed in undeclared(text, headers.renamed(name, name + "_renamed"))}, name
    print(len(names), "names of tram, each missed when it is renamed")
    print(sum(len(rows) for _, rows in tables(text)), "names of asyncio")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
