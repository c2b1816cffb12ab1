#!/usr/bin/env python3
"""Supervision trees by chance, in which actors end by chance and starts fail: after each step tram's have the same
actors running, and have started each as often, as Erlang's.

supervisors.c and supervisors.escript carry out one script. With TRAM_TEST_FULL 2,000 trees, else a few.
"""
# tram-check: release-only

import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from checks import SOURCE, check, compile_program, failures  # noqa: E402

PATIENCE = 200
SEED = 15


def tree(dice, number):
    """The lines of one tree: a root, what is below it in the order of numbers, starts that fail, and ends."""
    lines = [f"tree {number}"]
    supervisors = []
    count = dice.randint(2, 14)
    for node in range(count):
        parent = dice.choice(supervisors) if node else -1
        restart = dice.choice("ppty")
        if node == 0 or dice.random() < 0.35:
            lines.append(f"s {parent} {restart} {dice.choice('ooa')} {dice.choice([0, 1, 2, 3, 4, 6, 9])}")
            supervisors.append(node)
        else:
            lines.append(f"w {parent} {restart}")
    for _ in range(dice.choice([0, 0, 1, 2, 4])):
        lines.append(f"f {dice.randrange(count)} {dice.choice([1, 2, 2, 2, 3, 3, 4, 5])}")
    lines.append("go")
    for _ in range(dice.randint(2, 14)):
        lines.append(f"k {dice.randrange(count)} {dice.choice('nsee')}")
    return lines + ["end"]


def trees_of(output):
    return ["tree" + part for part in output.split("tree")[1:]]


# rules: N-14
def test_trees_end_as_erlangs_do(folder, count):
    dice = random.Random(SEED)
    scripts = [tree(dice, number) for number in range(count)]
    script = folder / "script"
    script.write_text("\n".join(line for lines in scripts for line in lines) + "\n")
    with open(script, encoding="ascii") as commands:
        ours = subprocess.run([compile_program("supervisors", folder)], stdin=commands, capture_output=True, text=True,
                              timeout=PATIENCE, check=True)
    theirs = subprocess.run(["escript", SOURCE / "tests/checks/supervisors.escript", script], capture_output=True,
                            text=True, timeout=PATIENCE, check=True)
    ours, theirs = trees_of(ours.stdout), trees_of(theirs.stdout)
    check(len(ours) == len(theirs) == count, f"{len(ours)} and {len(theirs)} trees of {count}")
    for lines, one, other in zip(scripts, ours, theirs):
        check(one == other, "\n".join([*lines, "tram:", one, "Erlang:", other]))
        if failures:
            return
    steps = sum(line.startswith("k ") for lines in scripts for line in lines)
    dead = sum(one.rstrip().rsplit("\n", 1)[-1].startswith("-") for one in ours)
    print(f"{count} trees, {steps} ends: the same as Erlang's after each; {dead} gave up as a whole")


def main():
    if not shutil.which("escript"):
        print("there is no Erlang (Debian's erlang-base)")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as name:
        test_trees_end_as_erlangs_do(pathlib.Path(name), 2000 if os.environ.get("TRAM_TEST_FULL") else 100)
    sys.exit(1 if failures else 0)


main()
