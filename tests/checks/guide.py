#!/usr/bin/env python3
# tram-check: release-only
"""What the guide, the map and the README say is so.

Compiles every C and C++ block, runs every shell block, and looks up every link, every name of tram and every header.
docs/guide/README.md says how a page marks its blocks. The table of messages in docs/guide/debugging.md is compared with
the sources. At first the check shows, on a copy of the tree in which a function has another name and a page has faults,
that it finds them, and that each name in the pages would be missed if its declaration had another.

    guide.py [PAGE…]        only these pages, without the shell blocks' set-up where they have none
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
BUILD = pathlib.Path(os.environ.get("TRAM_BUILD_DIR") or ROOT / "build/release").resolve()
sys.path.insert(0, str(ROOT / "tests/support"))
from headers import Headers  # noqa: E402

WARNINGS = ["-Wall", "-Wextra", "-Werror"]
# A fragment shows a thought, not all that uses it.
FRAGMENT_WARNINGS = WARNINGS + ["-Wno-unused", "-Wno-missing-field-initializers"]
COMPILERS = {
    "c": [os.environ.get("CC", "cc"), "-std=c11"],
    "cpp": [os.environ.get("CXX", "c++"), "-std=c++17", "-Wno-missing-field-initializers"],
}
PORTS = ["7000", "8080", "8081", "9100"] # in pages; each run gets free ones
HEADING = re.compile(r"^#+\s+(.*?)\s*$", re.M)
FENCE = re.compile(r"^```(.*?)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"(?<!!)!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*\Z")
NAME = re.compile(r"(?<![\w/.-])((?:tram|TRAM)_\w+)(\(\)|…|\*)?")
HEADER = re.compile(r"\btram/[a-z_]+\.h\b")


class Tree:
    """A tree with pages and headers: the real one, or the copy that has faults."""

    def __init__(self, root, headers=None):
        self.root = root
        self.problems = []
        headers = headers or Headers.of(root)
        self.functions = headers.functions
        # Options of the build, and variables of the environment.
        self.others = set(re.findall(r"\bTRAM_\w+", (root / "CMakeLists.txt").read_text()))
        self.others |= {"TRAM_BACKEND", "TRAM_TEST_FULL"}
        self.names = headers.names | self.others

    def pages(self):
        yield from sorted((self.root / "docs/guide").glob("*.md"))
        for name in ("docs/asyncio-map.md", "examples/README.md", "README.md"):
            if (self.root / name).exists():
                yield self.root / name

    def problem(self, path, offset, text):
        line = path.read_text().count("\n", 0, offset) + 1
        self.problems.append(f"{path.relative_to(self.root)}:{line}: {text}")


# ---- Links and names ----

def anchor(heading):
    """The name that a heading gets in a link, as forges make it."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def anchors(path):
    return {anchor(heading) for heading in HEADING.findall(FENCE.sub("", path.read_text()))}


def check_links(tree, path):
    text = FENCE.sub(lambda match: " " * len(match.group()), path.read_text())
    for match in LINK.finditer(text):
        target, _, fragment = match.group(1).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        place = (path.parent / target).resolve() if target else path
        if not place.exists():
            tree.problem(path, match.start(), f"no such file: {target}")
        elif fragment and place.suffix == ".md" and fragment not in anchors(place):
            tree.problem(path, match.start(), f"no such heading: {target}#{fragment}")


def is_known(tree, name, end):
    if end in ("…", "*") or name.endswith("_"):
        return any(other.startswith(name) for other in tree.names)
    return name in (tree.functions if end == "()" else tree.names)


def check_names(tree, path):
    text = path.read_text()
    for match in NAME.finditer(text):
        if not is_known(tree, *match.groups()):
            tree.problem(path, match.start(), f"no such name: {match.group()}")
    for match in HEADER.finditer(text):
        if not (tree.root / "include" / match.group()).exists():
            tree.problem(path, match.start(), f"no such header: {match.group()}")


# ---- Code ----

class Block:
    def __init__(self, path, match):
        self.path, self.offset, self.text = path, match.start(), match.group(2)
        words = match.group(1).split()
        self.language, self.words = (words[0] if words else ""), words[1:]
        self.file = next((word for word in self.words if "." in word), None)
        reason = NOT_RUN.search(path.read_text()[: match.start()])
        self.not_run = reason.group(1) if reason else None

    def is_whole(self):
        return "#include" in self.text

    def source(self):
        """What the compiler gets. Lines keep their numbers within the page."""
        line = self.path.read_text().count("\n", 0, self.offset) + 2
        mark = f'#line {line} "{self.path.name}"\n'
        if self.is_whole():
            return mark + self.text
        if "statements" in self.words:
            return f'#include "preamble.h"\nint fragment(void);\nint fragment(void) {{\n{mark}{self.text}\nreturn 0;\n}}\n'
        return f'#include "preamble.h"\n{mark}{self.text}'


def blocks(path):
    return [Block(path, match) for match in FENCE.finditer(path.read_text())]


def check_code(tree, path):
    for block in blocks(path):
        if block.language in COMPILERS:
            warnings = WARNINGS if block.is_whole() else FRAGMENT_WARNINGS
            command = [*COMPILERS[block.language], *warnings, "-D_GNU_SOURCE", f"-I{tree.root / 'include'}",
                       f"-I{tree.root / 'docs/guide'}", "-fsyntax-only", "-x",
                       {"c": "c", "cpp": "c++"}[block.language], "-"]
            done = subprocess.run(command, input=block.source(), text=True, capture_output=True)
            if done.returncode:
                tree.problem(path, block.offset, "does not compile:\n" + done.stderr)
        elif block.language == "python":
            try:
                compile(block.text, path.name, "exec")
            except SyntaxError as error:
                tree.problem(path, block.offset, f"no Python: {error}")
        elif block.language not in ("sh", "text", "cmake"):
            tree.problem(path, block.offset, f"a block of no known language: {block.language!r}")


# ---- Commands ----

def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(sock.getsockname()[1]) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def run(command, folder, environment):
    """Runs it with all that it starts in a group of its own, which ends with it."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen(["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment,
                                 stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        try:
            status = child.wait(120)
        except subprocess.TimeoutExpired:
            status = "none after 120 s"
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(child.pid, number)
            except ProcessLookupError:
                break
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                continue
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read()


def like(expected, output):
    """Is it that? `…` in a page stands for anything."""
    pattern = ".*?".join(re.escape(part) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, output.strip(), re.S)


def check_commands(tree, path, installed):
    page = blocks(path)
    if not any(block.language == "sh" and not block.not_run for block in page):
        return 0
    count, output = 0, ""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name in ("include", "examples", "docs", "bench", "scripts", "tests"):
            (folder / name).symlink_to(tree.root / name)
        (folder / "build").mkdir()
        (folder / "build/release").symlink_to(BUILD)
        ports = dict(zip(PORTS, free_ports(len(PORTS))))

        def here(text):
            return re.sub(r"\b(%s)\b" % "|".join(PORTS), lambda match: ports[match.group()], text)

        environment = dict(os.environ, **installed, TMPDIR=str(folder))
        for block in page:
            if block.file:
                (folder / block.file).write_text(here(block.text))
            if block.language == "sh" and not block.not_run:
                status, output, trouble = run(here(block.text), folder, environment)
                count += 1
                if status != 0:
                    tree.problem(path, block.offset, f"exit code {status}:\n{output}{trouble}")
            if block.language == "text" and "output" in block.words and not like(here(block.text), output):
                tree.problem(path, block.offset, f"it printed:\n{output}")
    return count


def install(prefix):
    subprocess.run(["cmake", "--install", BUILD, "--prefix", prefix], check=True, stdout=subprocess.DEVNULL)
    library = next(prefix.rglob("libtram.so")).parent
    return {
        "PATH": f"{prefix}/bin:{os.environ['PATH']}", "LD_LIBRARY_PATH": str(library),
        "PKG_CONFIG_PATH": f"{library}/pkgconfig", "CMAKE_PREFIX_PATH": str(prefix),
        "MANPATH": f"{prefix}/share/man", "CC": COMPILERS["c"][0], "CXX": COMPILERS["cpp"][0],
    }


# ---- Messages ----

def literal(text):
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', text))


def arguments_of(text, start):
    """What stands between the parentheses, the first of which is at `start`."""
    depth = 0
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|[()]', text[start:]):
        depth += {"(": 1, ")": -1}.get(match.group(), 0)
        if depth == 0:
            return text[start + 1: start + match.start()]
    return ""


def messages(root):
    """What the library logs and reports, with … for what changes."""
    texts = [path.read_text() for folder in ("core", "transports", "protocols")
             for path in sorted((root / folder).rglob("*.[ch]"))]
    tellers = {"tram__log"}
    for text in texts:
        tellers |= set(re.findall(r"\b(\w+)\([^(){};]*const char \*message\b", text))
    string = r'((?:"(?:[^"\\]|\\.)*"\s*)+)'
    found = {"%u more lines within a second were left out, such as: %s"}
    for text in texts:
        found |= {literal(match) for match in re.findall(r"\.message = " + string, text)}
        for match in re.finditer(r"\b(?:%s)(?=\()" % "|".join(sorted(tellers)), text):
            parts = [literal(part) for part in re.findall(string, arguments_of(text, match.end()))]
            parts = [part for part in parts if " " in part]
            found |= set(parts[:1] if match.group() == "tram__log" else parts) # its format alone
    return {re.sub(r"(?:%[-\d]*(?:\.\d+)?(?:ll)?[a-z]\.?)*%[-\d]*(?:\.\d+)?(?:ll)?[a-z]", "…", message) for message in found}


def check_codes(tree):
    """Each error code has a row in errors.md."""
    page = tree.root / "docs/guide/errors.md"
    told = set(re.findall(r"^\| `(TRAM_E\w+)`", page.read_text(), re.M))
    known = set(re.findall(r"^\s+(TRAM_E\w+) = -", (tree.root / "include/tram/error.h").read_text(), re.M))
    for name in sorted(known ^ told):
        tree.problem(page, 0, f"{name} is {'an error without a row' if name in known else 'no error'}")


def check_messages(tree):
    page = tree.root / "docs/guide/debugging.md"
    told = set(re.findall(r"^\| `([^`]+)`", page.read_text().partition("\n## Messages\n")[2], re.M))
    known = messages(tree.root)
    for message in sorted(known - told):
        tree.problem(page, 0, f"a message that no row has: {message}")
    for message in sorted(told - known):
        tree.problem(page, 0, f"no such message: {message}")
    return len(known)


# ---- What no page has ----

NO_TOPIC = {"export.h", "tram.h"} # nothing in them is to be used by itself
PROGRAM = re.compile(r"\.(?:c|cpp|service|socket)$")


def check_complete(tree):
    """The guide names every header, in its table of pages or in a page; examples/README.md has every example."""
    page = tree.root / "docs/guide/README.md"
    told = set(re.findall(r"`(\w+\.h)`", page.read_text())) - {"preamble.h"}
    told |= {name for path in page.parent.glob("*.md") for name in re.findall(r"`tram/(\w+\.h)`", path.read_text())}
    known = {path.name for path in (tree.root / "include/tram").glob("*.h")} - NO_TOPIC
    for name in sorted(known ^ told):
        tree.problem(page, 0, f"tram/{name} is {'a header without a page' if name in known else 'no header'}")
    page = tree.root / "examples/README.md"
    told = set(LINK.findall(page.read_text()))
    for path in sorted((tree.root / "examples").rglob("*")):
        name = str(path.relative_to(tree.root / "examples"))
        if PROGRAM.search(name) and name not in told:
            tree.problem(page, 0, f"an example without a row: {name}")


# ---- All of it, and whether it finds anything ----

def check(tree, pages):
    for path in pages:
        check_links(tree, path)
        check_names(tree, path)
        check_code(tree, path)


FAULTY = """# Faulty

[a page](nowhere.md), [a heading](README.md#nowhere), `tram_no_such_function()`, `tram/nowhere.h`.

```c statements
tram_transport_write(transport, "x");
```

```pascal
```
"""


def check_each_is_missed(tree, pages):
    """Each name that the pages have, with another in the header that declares it, and nowhere else."""
    headers, told = Headers.of(tree.root), set()
    for path in pages:
        told |= {match.groups() for match in NAME.finditer(path.read_text())}
    told = {(name, end) for name, end in told if name in headers.names - tree.others and end not in ("…", "*")}
    for name, end in told:
        changed = Tree(tree.root, headers.renamed(name, f"new_{name}"))
        assert not is_known(changed, name, end), f"{name}, renamed, is not missed"
    return len(told)


def selftest():
    """A renamed function breaks the pages that use it, and so do the faults of a page."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder)
        for name in ("include", "docs/guide", "examples"):
            shutil.copytree(ROOT / name, copy / name)
        shutil.copy(ROOT / "CMakeLists.txt", copy)
        header = copy / "include/tram/transport.h"
        header.write_text(header.read_text().replace("tram_transport_write(", "tram_transport_send("))
        tree = Tree(copy)
        page = copy / "docs/guide/first-server.md"
        check_names(tree, page)
        check_code(tree, page)
        assert any("no such name: tram_transport_write" in problem for problem in tree.problems), tree.problems
        assert any("does not compile" in problem and "tram_transport_write" in problem for problem in tree.problems), \
            tree.problems

        (copy / "include/tram/new.h").touch()
        (copy / "examples/new.c").touch()
        tree = Tree(copy)
        check_complete(tree)
        found = "\n".join(tree.problems)
        assert "tram/new.h is a header without a page" in found and "an example without a row: new.c" in found, found

        tree = Tree(ROOT)
        tree.root = copy
        page = copy / "docs/guide/faulty.md"
        page.write_text(FAULTY)
        check(tree, [page])
        found = "\n".join(tree.problems)
        for fault in ("no such file: nowhere.md", "no such heading: README.md#nowhere",
                      "no such name: tram_no_such_function", "no such header: tram/nowhere.h", "does not compile",
                      "no known language: 'pascal'"):
            assert fault in found, (fault, found)
    assert like("a … b 1", "a x\ny b 1\n") and not like("a … b", "a x c")
    print("a renamed function, and a page with faults: found")


def main():
    tree = Tree(ROOT)
    pages = list(tree.pages())
    if len(sys.argv) > 1:
        pages = [path for path in pages if path.name in sys.argv[1:] or path.stem in sys.argv[1:]]
    else:
        selftest()
        print(check_each_is_missed(tree, pages), "names, each missed when it is renamed")
        print(check_messages(tree), "messages")
        check_codes(tree)
        check_complete(tree)
    check(tree, pages)
    with tempfile.TemporaryDirectory() as folder:
        installed = install(pathlib.Path(folder) / "prefix")
        commands = sum(check_commands(tree, path, installed) for path in pages)
    compiled = sum(block.language in COMPILERS for path in pages for block in blocks(path))
    print(f"{len(pages)} pages, {compiled} blocks compiled, {commands} run")
    for problem in tree.problems:
        print(problem)
    return 1 if tree.problems or not compiled else 0


if __name__ == "__main__":
    sys.exit(main())
