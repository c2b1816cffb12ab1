#!/usr/bin/env python3
"""Lives are tables (core/base/life.h): their drawings are those of the tables, and nobody else changes a state.

A table is a `static const struct life_state states[]`; the enums of its states and moves stand in the same file or in a
header of its folder, with a comment for each. Every state is reached from the first, and no life goes back. With
--update the drawings in docs/architecture.md are made anew.
"""
# tram-check: release-only

import os
import pathlib
import re
import sys

SOURCE = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
PAGE = SOURCE / "docs/architecture.md"
BEGIN, END = "<!-- life: {} (made by tests/checks/life.py --update) -->\n", "<!-- life -->\n"
MECHANISM = SOURCE / "core/base/life.c"
TRANSPORT = SOURCE / "transports/base/lifecycle.h"  # its states are bits


def sources():
    return sorted(path for floor in ("core", "transports", "protocols") for path in SOURCE.glob(f"{floor}/*/*.[ch]"))


def enum_of(member, file):
    """{name: comment} of the enum with this member, in the file or in a header of its folder."""
    for path in [file, *sorted(file.parent.glob("*.h"))]:
        for body in re.findall(r"^enum \w+ \{(.*?)^\};", path.read_text(), re.S | re.M):
            found = re.findall(r"^ *(\w+),(?: */\*(.*?)\*/)?$", body, re.M)
            if member in dict(found):
                return {name: comment.strip() for name, comment in found}
    sys.exit(f"{file.relative_to(SOURCE)}: no enum has {member}")


class Table:
    def __init__(self, file, text, body):
        self.file = file.relative_to(SOURCE)
        self.name = re.search(r'struct life_table \w+ = \{\.name = "(.*?)", \.states = states', text).group(1)
        self.shown, self.moves = {}, []
        for state, name, row in re.findall(r'\[(\w+)\] =\s*\{(?:\.name = )?"(.*?)"(?:,\s*\{(.*?)\})?\}', body, re.S):
            self.shown[state] = name
            self.moves += [(state, move, to) for move, to in re.findall(r"\[(\w+)\] = (\w+)", row)]
        if len(self.shown) + len(self.moves) != len(re.findall(r"\] =\s", body)):
            sys.exit(f"{self.file}: this script does not understand all of the table")
        self.states = enum_of(next(iter(self.shown)), file)
        self.move_names = enum_of(self.moves[0][1], file)

    def faults(self):
        order = list(self.states)
        reached = {next(iter(self.shown))}
        for state, move, to in sorted(self.moves, key=lambda found: order.index(found[0])):
            reached |= {to} if state in reached else set()
            if order.index(to) <= order.index(state):
                yield f"{move} leads back from {state} to {to}"
        for state in self.shown.keys() - reached:
            yield f"nothing leads to {state}"
        for move in self.move_names.keys() - {move for _, move, _ in self.moves}:
            if not move.endswith("_COUNT"):
                yield f"no state has the move {move}"

    def drawing(self):
        used = {name: name.partition("_")[2] for name in [*self.shown, *self.move_names]}
        short = {name: text.lower().replace("_", " ") for name, text in used.items()}
        lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {used[next(iter(self.shown))]}"]
        lines += [f"    {used[source]} --> {used[to]}: {short[move]}" for source, move, to in self.moves]
        lines += [f"    {used[state]} --> [*]" for state in self.shown if not any(state == way[0] for way in self.moves)]
        lines += ["```", ""]
        lines += ["| state | what it is |", "| --- | --- |"]
        lines += [f"| {name} | {self.states[state]} |" for state, name in self.shown.items()]
        lines += ["", "| move | when |", "| --- | --- |"]
        lines += [f"| {short[move]} | {comment} |" for move, comment in self.move_names.items()
                  if not move.endswith("_COUNT")]
        return "\n".join(lines) + "\n"


def tables():
    for file in sources():
        text = file.read_text()
        for body in re.findall(r"^static const struct life_state states\[\] = \{\n(.*?)^\};", text, re.S | re.M):
            yield Table(file, text, body)


def changed_elsewhere():
    """Assignments to a state that are not a move: all but the first of a life."""
    bits = set(re.search(r"LIFE_FLAGS .*?\(\(uint32_t\)\((.*?)\)\)", TRANSPORT.read_text()).group(1).split(" | "))
    for path in sources():
        text = path.read_text()
        for statement in re.finditer(r"flags\s*([|&^]?=)(?!=)([^;]*);", text):
            if path != TRANSPORT and bits & set(re.findall(r"T_\w+", statement.group(2))):
                yield f"{path.relative_to(SOURCE)}: {' '.join(statement.group(0).split())}"
        for statement in re.finditer(r"(?:->|\.)life\s*[|&^]?=(?!=)\s*(\w+)", text):
            if not statement.group(1) in begins:
                yield f"{path.relative_to(SOURCE)}: {statement.group(0)}"


begins = set()


def main():
    page, bad, names = PAGE.read_text(), [], []
    for table in tables():
        begins.add(next(iter(table.shown)))
        bad += [f"{table.file}: {fault}" for fault in table.faults()]
        names.append(table.name)
        begin = BEGIN.format(table.name)
        before, found, rest = page.partition(begin)
        drawn, _, after = rest.partition(END)
        if not found:
            bad.append(f"docs/architecture.md has no place for the life of a {table.name}")
        elif sys.argv[1:] == ["--update"]:
            page = before + begin + table.drawing() + END + after
        elif drawn != table.drawing():
            bad.append(f"docs/architecture.md: the drawing is not that of {table.file} (--update makes it anew)")
    bad += [f"docs/architecture.md: there is no life of a {name}"
            for name in re.findall(r"<!-- life: (.*?) \(made", page) if name not in names]
    bad += [f"{text}: a life is changed by its moves alone" for text in changed_elsewhere()]
    if sys.argv[1:] == ["--update"]:
        PAGE.write_text(page)
    print("\n".join(bad) or f"{', '.join(names)}: as drawn")
    return bool(bad)


sys.exit(main())
