#!/usr/bin/env python3
"""Writes what tests know of each public call that gives a code, from the headers.

usage: codes.py FOLDER-OF-PUBLIC-HEADERS FOLDER

codes.h in that folder makes a macro of each, by which its answers are looked at (support/codes.h); public_calls.h has a table
of all that begin with one kind of object (support/calls.h).
"""

import collections
import pathlib
import re
import sys

from headers import code_of

DECLARED = re.compile(r"^TRAM_API\s+(int|const tram_error \*)\s*(tram_\w+)\(([^;]*)\)[^;()]*;", re.M)
FIRST = re.compile(r"(?:const )?(tram_\w+) \*\w+$")


def arguments(text):
    """What is between commas that stand in no brackets."""
    found, depth = [""], 0
    for character in " ".join(text.split()):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [argument.strip() for argument in found]


def nothing(argument):
    """Of this type."""
    by_value = re.fullmatch(r"(?:const )?(tram_\w+) \w+", argument)
    return f"({by_value[1]}){{0}}" if by_value else "0"


def write(path, lines):
    text = "\n".join(["/* Made by tests/support/codes.py. */", *lines, ""])
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def main():
    folder, result = map(pathlib.Path, sys.argv[1:])
    headers = sorted(folder.glob("tram/*.h"))
    codes = [f"#include <tram/{header.name}>" for header in headers] + ['#include "support/codes.h"', ""]
    calls, tables = ['#include "support/calls.h"', ""], collections.defaultdict(list)
    for header in headers:
        for kind, name, text in DECLARED.findall(code_of(header.read_text(encoding="utf-8"))):
            check = "checked_status" if kind == "int" else "checked_error"
            codes.append(f'#define {name}(...) (calls_enter(), {check}({name}(__VA_ARGS__), "{name}"))')
            first, *others = arguments(text)
            of = FIRST.fullmatch(first)
            if kind == "int" and of and not text.endswith("..."):
                given = ", ".join(["object", *map(nothing, others)])
                calls += [f"static int call_{name}(void *object) {{", f"    return {name}({given});", "}", ""]
                tables[of[1]].append(name)
    for of, names in sorted(tables.items()):
        calls += [f"__attribute__((unused)) static const struct public_call calls_of_{of}[] = {{",
                  *(f'    {{"{name}", call_{name}}},' for name in names), "    {0},", "};", ""]
    write(result / "codes.h", codes)
    write(result / "public_calls.h", calls)


if __name__ == "__main__":
    main()
