#!/usr/bin/env python3
"""Say why a step of scripts/test failed: the essential lines of its log, a few for each failed test.

usage: why.py LOG

Where nothing but the end of a gate's output is kept, this is what remains of a failure: what cmocka,
a sanitizer, a compiler or a script complained of, and the first frames of it.
"""

import re
import sys

LINES = 25  # of one test
WIDTH = 400  # of one line
FRAMES = 5  # of one stack
FEW, TAIL = 3, 12  # where hardly anything looks like a complaint

RESULT = re.compile(r"\s*\d+/\d+ Test +#\d+: (\S+) \.*(.*)")
START = re.compile(r"\s+Start +\d+: \S+$")
END = re.compile(r"\d+% tests passed")
FAILED = re.compile(r"\*\*\*(?!Skipped)(.*?) +[0-9.]+ sec")

COMPLAINT = re.compile(
    r"\[  (ERROR|FAILED)  +\]|: error: Failure!|left behind|[Aa]ssertion|Assert[a-z]*Error|runtime error:|"
    r"(ERROR|WARNING|SUMMARY): \w*(Sanitizer|:)|LeakSanitizer|DEADLYSIGNAL|FATAL|[Ee]rror:|ERROR|FAILED|FAIL\b|"
    r"undefined reference|NOT noticed|does not (apply|build)|Invalid (read|write)|uninitialised|definitely lost|Killed|core dumped|"
    r"No such file|Permission denied|Cannot|cannot|not found"
)
REPORT = re.compile(r"(ERROR|WARNING): \w*Sanitizer|runtime error:")
REPORT_END = re.compile(r"=====|SUMMARY:|\[ ")
FRAME = re.compile(r"\s+#(\d+) ")


def failures(lines):
    """The failed tests of a ctest log, as (name, how, lines of its output)."""
    name = how = None
    output = []
    for line in lines:
        result = RESULT.match(line)
        if not (result or START.match(line) or END.match(line)):
            output.append(line)
            continue
        if name:
            yield name, how, output
        failed = result and FAILED.match(result[2])
        name, how, output = (result[1], failed[1], []) if failed else (None, None, [])
    if name:
        yield name, how, output


def essential(lines):
    """The complaints, and what belongs to a sanitizer's report without the depth of its stacks."""
    kept = []
    in_report = follows = False
    running = None
    for line in lines:
        frame = FRAME.match(line)
        complaint = COMPLAINT.search(line)
        if "[ RUN " in line:
            running = line
        if REPORT.search(line):
            in_report = True
            if running and running not in kept:
                kept.append(running)
        elif in_report and REPORT_END.match(line):
            in_report = False
        if (frame and int(frame[1]) >= FRAMES) or not line.strip():
            continue
        # What cmocka compared stands in the line after its mark.
        if complaint or in_report or follows:
            kept.append(line)
        follows = "[  ERROR   ]" in line
    return kept


def show(lines, tail):
    kept = essential(lines)
    filled = [line for line in lines if line.strip()]
    if tail or len(kept) < FEW:
        kept = kept[: LINES - TAIL] + [line for line in filled[-TAIL:] if line not in kept[: LINES - TAIL]]
    for line in kept[:LINES]:
        cut = line if len(line) <= WIDTH else line[: WIDTH // 2] + " ... " + line[-WIDTH // 2 :]
        print("   " + cut.rstrip())
    if len(kept) > LINES:
        print(f"   ... {len(kept) - LINES} lines more")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8", errors="replace") as log:
        lines = log.read().splitlines()
    found = list(failures(lines))
    for name, how, output in found:
        print(f"-- {name}: {how}")
        # What was running when it was ended stands last.
        show(output, tail=not how.startswith("Failed"))
    if not found:
        show(lines, tail=False)
    print(f"   all of it: {sys.argv[1]}")


main()
