#!/usr/bin/env python3
"""The life of a transport: its drawing is that of its table, and nobody but life_move() changes its bits.

With --update the drawing in docs/architecture.md is made anew.
"""
# tram-check: release-only

import os
import pathlib
import re
import sys

SOURCE = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
HEADER = SOURCE / "transports/base/life.h"
TABLE = SOURCE / "transports/base/life.c"
PAGE = SOURCE / "docs/architecture.md"
BEGIN, END = "<!-- life: made by tests/checks/life.py --update -->\n", "<!-- life -->\n"


def names(enum):
    """{name: comment} of an enum of life.h, without the first and last that are none."""
    body = re.search(rf"enum {enum} \{{(.*?)\}};", HEADER.read_text(), re.S).group(1)
    return {name: comment.strip() for name, comment in re.findall(r"^ *(\w+),(?: */\*(.*?)\*/)?$", body, re.M)}


def table():
    """[(from, move, to)] in the order of the table."""
    body = re.search(r"moves\[LIFE_COUNT\]\[MOVE_COUNT\] = \{(.*?)\n\};", TABLE.read_text(), re.S).group(1)
    found = []
    for state, row in re.findall(r"\[(LIFE_\w+)\] = \{(.*?)\}", body, re.S):
        found += [(state, move, to) for move, to in re.findall(r"\[(MOVE_\w+)\] = (LIFE_\w+)", row)]
    if len(found) != body.count("MOVE_"):
        sys.exit("life.c: this script does not understand all of the table")
    return found


def short(name):
    return name.partition("_")[2].lower().replace("_", " ")


def drawing():
    moves, states = table(), names("life")
    used = dict.fromkeys(state for source, _, to in moves for state in (source, to))
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {next(iter(used))[5:]}"]
    lines += [f"    {source[5:]} --> {to[5:]}: {short(move)}" for source, move, to in moves]
    lines += [f"    {state[5:]} --> [*]" for state in used if not any(source == state for source, _, _ in moves)]
    lines += ["```", "", "| state | what it is |", "| --- | --- |"]
    lines += [f"| {short(state)} | {comment} |" for state, comment in states.items() if state in used]
    lines += ["", "| move | when |", "| --- | --- |"]
    lines += [f"| {short(move)} | {comment} |" for move, comment in names("move").items() if move != "MOVE_COUNT"]
    unused = states.keys() - used.keys() - {"LIFE_NONE", "LIFE_COUNT"}
    if unused:
        sys.exit(f"life.h: no move leads to or from {', '.join(sorted(unused))}")
    return "\n".join(lines) + "\n"


def changed_elsewhere():
    """Assignments to bits of the life outside of life_move()."""
    bits = set(re.search(r"LIFE_FLAGS .*?\(\(uint32_t\)\((.*?)\)\)", HEADER.read_text()).group(1).split(" | "))
    for path in sorted(SOURCE.glob("transports/*/*.[ch]")):
        for statement in re.finditer(r"flags\s*([|&^]?=)(?!=)([^;]*);", path.read_text()):
            if path != HEADER and bits & set(re.findall(r"T_\w+", statement.group(2))):
                yield f"{path.relative_to(SOURCE)}: {' '.join(statement.group(0).split())}"


def main():
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    drawn, _, after = rest.partition(END)
    if not rest:
        sys.exit("docs/architecture.md has no place for the drawing")
    if sys.argv[1:] == ["--update"]:
        PAGE.write_text(before + BEGIN + drawing() + END + after)
        return 0
    bad = [f"{text}: a transport's life is changed by life_move() alone" for text in changed_elsewhere()]
    if drawn != drawing():
        bad.append("docs/architecture.md: the drawing is not that of life.c (--update makes it anew)")
    print("\n".join(bad) or f"{len(table())} moves")
    return bool(bad)


sys.exit(main())
