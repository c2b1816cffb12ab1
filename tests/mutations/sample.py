#!/usr/bin/env python3
"""Changes random lines of the library, one at a time, and looks whether any test notices.

usage: sample.py [--seed N] [--count K] [--only NUMBERS|OPERATOR|PATH] [--list] [--jobs N] [--quick] [--no-asan]
                 [--at-least PERCENT] [--fresh]

The same seed draws the same mutations of the same tree: first an operator, then one of its places (operators.py). What
does not compile, or compiles to the same machine code, is no mutation and another one is drawn. Those of
equivalents.txt are listed and do not count. All happens in a copy of the tree below build/mutations; what was found
there is kept, so that a run that was stopped goes on where it was, until the tree changes (--fresh: begins anew).

The test functions that run the line come first, as a build with counters tells (reached.c), then all other programs but
checks; the first that fails, dies or hangs ends the search. With --quick the others are not asked (those of a similar
name are, where the line is no code, as in a table), which makes a mutation that survives cheap; what survived so is
asked again by a run without. A survivor is then shown to those that run the line in a build with the address sanitizer,
as the gate has one: leaks and uses after a free end a program there, and the library's own assertions are on
(--no-asan: is not). Exit code 1: less than --at-least percent were noticed (0).
"""

import argparse
import array
import bisect
import collections
import concurrent.futures
import contextlib
import fcntl
import functools
import hashlib
import itertools
import json
import os
import pathlib
import random
import re
import resource
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import operators

SOURCE = pathlib.Path(__file__).resolve().parents[2]
WORK = SOURCE / "build/mutations"
TREE, RELEASE, COVERAGE, ASAN = (WORK / name for name in ("tree", "release", "coverage", "asan"))
REACHED = WORK / "reached.so"
EQUIVALENTS = pathlib.Path(__file__).resolve().parent / "equivalents.txt"
FOLDERS = ("core", "transports", "protocols")
LABEL = re.compile(r"\s*(case\b|default:)")
FAILED = re.compile(rb"\[  (?:FAILED|ERROR) +\] (?:[\w ]+: )?(test_\w+)")
REPEATS = 3        # of a failure, of which one must fail again
QUICK = "SURVIVED those that run it"  # with --quick
PROOF = 8          # times that a test must have passed without a mutation, before its failure means something
MEMORY = 8 << 30   # what a test program may have
SLOWER = 4         # times that a test takes longer under the address sanitizer
AT_MOST = 8        # tests that a survivor is shown to there


class Trouble(Exception):
    """What ends the run with a line."""


def run(*command, cwd=None, check=True):
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, errors="replace",
                          check=False)
    if check and done.returncode:
        raise Trouble(f"{shlex.join(map(str, command))}\n{(done.stdout + done.stderr)[-3000:]}")
    return done


# ---- The copy and its builds ----------------------------------------------------------------------------------

def sources():
    """The files of the tree."""
    for folder, folders, files in os.walk(SOURCE):
        if pathlib.Path(folder) == SOURCE:
            folders[:] = [name for name in folders if name not in ("build", ".git")]
        for file in files:
            path = pathlib.Path(folder, file)
            if path.is_file() and path != SOURCE / ".git":
                yield path


def copy_tree():
    """Brings the copy up to date. What did not change keeps its time, so that little is built again."""
    there = set()
    for path in sources():
        name = path.relative_to(SOURCE)
        there.add(name)
        target, text = TREE / name, path.read_bytes()
        if not target.exists() or target.read_bytes() != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text)
            shutil.copymode(path, target)
    for path in list(TREE.rglob("*")):
        if path.is_file() and path.relative_to(TREE) not in there:
            path.unlink()


def digest():
    """Of what decides about results: the library and its tests."""
    state = hashlib.sha256()
    for folder in (*FOLDERS, "include", "tools", "tests"):
        for path in sorted((TREE / folder).rglob("*")):
            if path.suffix in (".c", ".h", ".txt", ".map") and path.name != EQUIVALENTS.name:
                state.update(str(path.relative_to(TREE)).encode() + b"\0" + path.read_bytes())
    return state.hexdigest()[:12]


def build(folder, *options):
    launcher = ["-DCMAKE_C_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
    generator = [] if (folder / "CMakeCache.txt").exists() else ["-G", "Ninja"]
    source = pathlib.Path(__file__).resolve().with_name("reached.c")
    if not REACHED.exists() or REACHED.stat().st_mtime < source.stat().st_mtime:
        run("cc", "-O2", "-fPIC", "-shared", "-o", REACHED, source)
    linked = f"-Wl,--push-state,--no-as-needed,{REACHED},--pop-state"
    run("cmake", "-S", TREE, "-B", folder, *generator, *launcher, "-DTRAM_TESTS=ON", "-DTRAM_PROGRAMS=OFF",
        "-DTRAM_EXAMPLES=OFF", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", f"-DCMAKE_EXE_LINKER_FLAGS={linked}",
        f"-DCMAKE_SHARED_LINKER_FLAGS={linked}", *options)
    run("cmake", "--build", folder)


class Test:
    """A test program, as ctest would run it."""

    def __init__(self, found):
        properties = {entry["name"]: entry["value"] for entry in found.get("properties", [])}
        self.name = found["name"]
        self.program = pathlib.Path(found["command"][-1])
        self.labels = properties.get("LABELS", [])
        self.folder = properties.get("WORKING_DIRECTORY", str(RELEASE))
        self.environment = dict(entry.split("=", 1) for entry in properties.get("ENVIRONMENT", []))
        self.skipped = properties.get("SKIP_RETURN_CODE", 77)
        self.seconds = {}        # of each function, without any mutation
        self.passed = collections.Counter()  # times, of functions, without any
        self.unreliable = set()  # functions that failed without any: they are not asked
        self.slower = 1          # times that it takes longer than `seconds` say
        self.memory = MEMORY

    def limit(self, functions):
        """Seconds after which it hangs."""
        if not self.seconds:
            return 240
        took = sum(self.seconds.get(name, 0) for name in functions) if functions else sum(self.seconds.values())
        return min(5 + 8 * self.slower * (took + 0.2), 30 + 2 * self.slower * took)


def tests_of(folder):
    listed = json.loads(run("ctest", "--test-dir", folder, "--show-only=json-v1").stdout)
    return [Test(found) for found in listed["tests"]
            if found.get("command") and "checks" not in Test(found).labels]


# ---- Running a test -------------------------------------------------------------------------------------------

@functools.cache
def alone():
    """What shuts a test program in: a mutant may signal process -1, and leave children. Root needs no more for it."""
    prefix = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    for command in (prefix, [*prefix, "--user", "--map-current-user"]):
        if shutil.which("unshare") and run(*command, "true", check=False).returncode == 0:
            # The first process of a namespace lacks default signals, so the shell is that one.
            return [*command, "sh", "-c", '"$@"; exit $?', "sh"]
    if os.geteuid() == 0:
        raise Trouble("unshare(1) does not work here, and as root a mutant could end every process of this machine")
    return []


def limits(memory):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def failures(test, output, before):
    """What has failed so far; `asked` are those that never fail without a mutation."""
    found = [match[1].decode() for match in FAILED.finditer(output) if b"\n" in output[match.end():]]
    names = [*before["all"], *(name for name in found if name not in before["all"])]
    return {"all": names, "asked": [name for name in names if name not in test.unreliable]}


def run_test(test, program, stop, functions=(), reached=None):
    """
    How it failed, of these functions or of all; None if it did not, or if `stop` came first. With a folder for what
    each one reaches it goes on after failures.
    """
    environment = {**os.environ, **test.environment, "CMOCKA_TEST_ABORT": "0"}
    environment |= {"TRAM_ONLY": ",".join(functions)} if functions else {}
    environment |= {"TRAM_REACHED": str(reached)} if reached else {}
    process = subprocess.Popen([*alone(), str(program)], cwd=test.folder, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                               preexec_fn=functools.partial(limits, test.memory), env=environment)
    limit = test.limit(functions)
    end, output, failed = time.monotonic() + limit, b"", {"asked": [], "all": []}
    try:
        while not stop.is_set():
            if time.monotonic() > end:
                return f"hangs for {limit:.0f} s"
            if not select.select([process.stdout], [], [], 0.05)[0]:
                if process.poll() is not None:
                    break
                continue
            part = os.read(process.stdout.fileno(), 1 << 16)
            if not part:
                break
            output = output[-4000:] + part
            failed = failures(test, output, failed)
            if failed["asked"] and not reached:
                return failed["asked"][0]  # the others would fail as well, each after long waits
        if stop.is_set():
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(1, end - time.monotonic()))
        code = process.poll()
        if code in (0, test.skipped) or code == len(set(failed["all"])):
            return None  # cmocka's exit code is the number of failed ones
        return f"hangs for {limit:.0f} s" if code is None else f"ends with {code}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        process.stdout.close()


def each(jobs, tests, function):
    """Calls it for all of them, the slowest kind first; what one raises ends it."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(function, sorted(tests, key=lambda test: "stress" not in test.labels)))


# ---- What each test runs --------------------------------------------------------------------------------------

class Coverage:
    """Which test functions run a line, and how long each one takes."""

    FLAGS = "-O0 -g1 -DNDEBUG -fno-reorder-functions -fsanitize-coverage=trace-pc"
    LINK = ("<CMAKE_C_COMPILER> <FLAGS> <CMAKE_C_LINK_FLAGS> <LINK_FLAGS> <OBJECTS> -o <TARGET> -Wl,-Map,<TARGET>.map"
            " <LINK_LIBRARIES>")
    BLOCK = re.compile(r"^([0-9a-f]+) .*\b__sanitizer_cov_trace_pc\b", re.M)
    PLACE = re.compile(r"^ \.text +0x([0-9a-f]+) +0x[0-9a-f]+ (?:.*\()?([^()\n]+)\)?$", re.M)
    ROW = re.compile(r"^(\S+) +(\d+|-) +(0x[0-9a-f]+|0)(?=\s|$)", re.M)

    def __init__(self, jobs):
        say("building with counters, to see which test function runs which line")
        thin = "<CMAKE_AR> qcT <TARGET> <LINK_FLAGS> <OBJECTS>"  # objects are then called by their paths
        build(COVERAGE, "-DCMAKE_BUILD_TYPE=None", f"-DCMAKE_C_FLAGS={self.FLAGS}",
              f"-DCMAKE_C_LINK_EXECUTABLE={self.LINK}", f"-DCMAKE_C_ARCHIVE_CREATE={thin}")
        self.places, self.functions = {}, {}  # of each test: where its objects are; what its functions reached, sorted
        self.seconds = {}
        each(jobs, tests_of(COVERAGE), self.collect)

    def collect(self, test):
        """Runs it, unless this very program has been run already."""
        folder = COVERAGE / "data" / test.name.replace("/", "+")
        program = hashlib.sha256(test.program.read_bytes()).hexdigest()
        done = folder / "done"
        if not done.exists() or done.read_text(encoding="utf-8") != program:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            run_test(test, test.program, threading.Event(), reached=folder)
            done.write_text(program, encoding="utf-8")
        self.functions[test.name], self.seconds[test.name] = found, seconds = {}, {}
        for path in folder.iterdir():
            if path.name not in ("done", "map"):
                content = path.read_bytes()
                seconds[path.name] = int.from_bytes(content[:8], sys.byteorder) / 1e9
                found[path.name] = array.array("I", content[8:])
        if not found:  # no functions: one program
            content = (folder / "map").read_bytes()
            found["main"], seconds["main"] = array.array("I", [at for at, byte in enumerate(content) if byte]), 30
        text = pathlib.Path(f"{test.program}.map").read_text(encoding="utf-8", errors="replace")
        self.places[test.name] = {os.path.normpath(object): int(at, 16) for at, object in self.PLACE.findall(text)}

    @functools.cache
    def blocks(self, target, path):
        """{line of the file: addresses in the object that are passed when it runs}"""
        calls = self.BLOCK.findall(run("readelf", "-rW", COVERAGE / target).stdout)
        passed = sorted(int(at, 16) + 4 for at in calls)  # where each call returns to
        told = run("objdump", "--dwarf=decodedline", "-w", COVERAGE / target).stdout
        rows, found, name = [], collections.defaultdict(set), ""
        for line in told.splitlines():
            row = self.ROW.match(line)
            if row:
                rows.append((int(row[3], 16), name if os.path.basename(name) == row[1] else row[1], row[2]))
            elif line.endswith(":"):
                name = os.path.normpath(COVERAGE / line[:-1].removeprefix("CU: "))
        for (begin, file, line), (end, _, _) in zip(rows, rows[1:]):
            if line != "-" and (file.endswith("/" + path) or path.endswith("/" + file)):
                first = bisect.bisect_right(passed, begin + 5)
                last = bisect.bisect_left(passed, end + 5)
                found[int(line)].update(passed[max(first - 1, 0):last])
        return found

    def tests(self, mutation, targets):
        """
        {test: its functions that run the line, the fastest first}, and in which of the objects; None, and all of them:
        the line is no code.
        """
        tables = [(target, self.blocks(target, mutation.path)) for target in targets]
        if mutation.operator == "drop-jump":
            # A jump is often no block of its own, and what comes before it in memory may be another branch.
            places = [(target, passed) for target, blocks in tables
                      for line in range(mutation.line - 3, mutation.line + 1) for passed in blocks.get(line, ())]
            if places:
                return self.who(places)
        if LABEL.match(mutation.old):  # whose code stands below
            places = [(target, passed) for target, blocks in tables
                      for line in range(mutation.line, mutation.line + 4) for passed in blocks.get(line, ())]
            if places:
                return self.who(places)
        for line in range(mutation.line, max(mutation.line - 4, 0), -1):  # a statement may have several lines
            places = [(target, passed) for target, blocks in tables for passed in blocks.get(line, ())]
            if places:
                return self.who(places)
        return None, set(targets)

    def who(self, places):
        found, objects = {}, set()
        for test in self.functions:
            names = self.running(test, places, objects)
            if names:
                found[test] = sorted(names, key=self.seconds[test].get)
        return found, objects

    def running(self, test, places, objects):
        there = self.places[test]
        wanted = [(target, there[target] + passed) for target, passed in places if target in there]
        names = []
        for name, reached in self.functions[test].items():
            run_in = {target for target, at in wanted
                      for index in (bisect.bisect_left(reached, at),) if index < len(reached) and reached[index] == at}
            if run_in:
                names.append(name)
                objects |= run_in
        return names


# ---- A mutant -------------------------------------------------------------------------------------------------

@functools.cache
def fast_linker():
    return ["-fuse-ld=lld"] if shutil.which("ld.lld") else []


class Mutants:
    """Compiles and links them beside a build, which stays as it is."""

    def __init__(self, tests, folder=RELEASE):
        self.folder, self.place = folder, WORK / f"mutant-{folder.name}"
        self.commands = {}  # by path in the tree: object and its compile command
        for entry in json.loads((self.folder / "compile_commands.json").read_text(encoding="utf-8")):
            path = pathlib.Path(entry["file"])
            words = shlex.split(entry["command"])
            if path.is_relative_to(TREE) and "-o" in words:
                self.commands[str(path.relative_to(TREE))] = (words[words.index("-o") + 1], words)
        self.tests = {test.name: test for test in tests}
        self.link_lock = threading.Lock()
        self.links = {}
        self.originals = {}

    def users(self, path):
        """Sources whose objects change with the file."""
        if path.endswith(".c"):
            return [path]
        return [source for source, (target, _) in self.commands.items() if str(TREE / path) in self.needed(target)]

    @functools.cache
    def all_needed(self):
        found, target = collections.defaultdict(set), None
        for line in run("ninja", "-C", self.folder, "-t", "deps").stdout.splitlines():
            if line.startswith("    "):
                found[target].add(os.path.normpath(self.folder / line.strip()))
            elif line:
                target = line.partition(":")[0]
        return found

    def needed(self, target):
        return self.all_needed().get(target, set())

    def compile(self, source, name):
        """The object of a source, with the mutated file in place of the tree's; None: it does not compile."""
        target, words = self.commands[source]
        overlaid = self.place / "tree" / source
        if not overlaid.exists():
            overlaid = TREE / source
        result = self.place / name / target
        result.parent.mkdir(parents=True, exist_ok=True)
        words = [word for word in words if not word.endswith("ccache")]
        words = [words[0], f"-I{self.place / 'tree'}", *words[1:], "-g0", "-w", "-Wno-error"]
        words[words.index("-o") + 1] = str(result)
        words[words.index("-c") + 1] = str(overlaid)
        words = self.without_dependencies(words)
        return result if run(*words, cwd=self.folder, check=False).returncode == 0 else None

    @staticmethod
    def without_dependencies(words):
        """Without -MD -MT … -MF …, which are ninja's."""
        result, skip = [], False
        for word in words:
            if skip or word in ("-MD", "-MT", "-MF"):
                skip = not skip and word in ("-MT", "-MF")
                continue
            result.append(word)
        return result

    def make(self, mutation, wanted):
        """{object in the build: the mutant's}, or why there is none. Of a header's users those that run the line."""
        shutil.rmtree(self.place, ignore_errors=True)
        place = self.place / "tree" / mutation.path
        place.parent.mkdir(parents=True)
        text = (TREE / mutation.path).read_text(encoding="utf-8")
        sources = self.users(mutation.path)
        sources = [source for source in sources if self.commands[source][0] in wanted] or sources
        lines = text.split("\n")
        lines[mutation.line - 1] = mutation.new
        place.write_text("\n".join(lines), encoding="utf-8")
        result, same = {}, True
        for source in sources:
            made = self.compile(source, "objects")
            if made is None:
                return "does not compile"
            result[self.commands[source][0]] = made
            same = same and made.read_bytes() == self.original(source, place, text)
        return "compiles to the same code" if same else result

    def original(self, source, place, text):
        """
        The object without the mutation, compiled where that one is. Of a header's users only those are asked that come
        before the first which differs.
        """
        key = (place, source)
        if key not in self.originals:
            mutated = place.read_bytes()
            place.write_text(text, encoding="utf-8")
            made = self.compile(source, "original")
            place.write_bytes(mutated)
            self.originals[key] = made.read_bytes() if made else None
        return self.originals[key]

    def link_command(self, test):
        with self.link_lock:
            if test.name not in self.links:
                target = os.path.relpath(test.program, self.folder)
                lines = run("ninja", "-C", self.folder, "-t", "commands", "-s", target).stdout.splitlines()
                words = shlex.split(next(line for line in lines if " -o " in line))
                self.links[test.name] = [word for word in words if word not in (":", "&&")]
            return self.links[test.name]

    def link(self, test, objects):
        """
        The test program, with the mutant's objects ahead of the libraries: what they define, the linker does not take
        from there.
        """
        program = self.place / "programs" / os.path.relpath(test.program, self.folder)
        program.parent.mkdir(parents=True, exist_ok=True)
        words = self.link_command(test)
        first_library = next(index for index, word in enumerate(words) if word.endswith(".a"))
        own = {word for word in words if word in objects}
        others = [str(made) for target, made in objects.items() if target not in own and "/test_" not in target]
        words = [*words[:first_library], *others, *words[first_library:]]
        words = [str(objects[word]) if word in objects else word for word in words]
        words[words.index("-o") + 1] = str(program)
        run(*words, "-Wl,-S", *fast_linker(), cwd=self.folder)
        return program


class Search:
    """Which test notices, if any."""

    def __init__(self, tests, coverage, mutants, jobs, quick):
        self.tests, self.coverage, self.mutants, self.jobs, self.quick = tests, coverage, mutants, jobs, quick
        self.with_asan = False
        self.earlier = collections.defaultdict(collections.Counter)  # by path: tests that noticed there

    def running(self, mutation):
        """See Coverage.tests()."""
        return self.coverage.tests(mutation, [self.mutants.commands[source][0]
                                              for source in self.mutants.users(mutation.path)])

    def order(self, mutation, running):
        """[(test, functions that are asked; all of them if there are none)]"""
        words = set(re.split(r"\W|_", mutation.path.rpartition(".")[0])) - {"core", "transports", "protocols"}

        def alike(test):
            return len(words & set(re.split(r"\W|_", test.name)))

        asked = []
        for test in self.tests:
            names = (running or {}).get(test.name, [])
            if names:
                whole = "main" in names
                names = [] if whole else [name for name in names if name not in test.unreliable]
                if names or whole:
                    asked.append((test, names, sum(map(test.seconds.get, names or test.seconds))))
            elif not self.quick or (running is None and alike(test)):
                asked.append((test, [], 1000 + sum(test.seconds.values())))

        def key(one):
            test, _, seconds = one
            late = "stress" in test.labels or seconds >= 1000
            return (late, -self.earlier[mutation.path][test.name], -alike(test), seconds)
        return [one[:2] for one in sorted(asked, key=key)]

    def one(self, test, functions, objects, stop):
        if stop.is_set():
            return None
        program = self.mutants.link(test, objects)
        noticed = run_test(test, program, stop, functions)
        while noticed and not stop.is_set():
            # A test that fails now and then has noticed nothing.
            needed = functions[:functions.index(noticed) + 1] if noticed in functions else functions
            if not any(run_test(test, program, stop, needed) for _ in range(1 if "hangs" in noticed else REPEATS)):
                return None
            if self.reliable(test, noticed, needed, stop):
                if not stop.is_set():
                    stop.set()
                    return test.name, noticed
                return None
            left = [name for name in functions if name not in test.unreliable]
            if not left or left == functions:
                return None  # it hangs or dies without a mutation as well
            functions = left
            noticed = run_test(test, program, stop, functions)
        return None

    @staticmethod
    def reliable(test, noticed, functions, stop):
        """Whether it passes without a mutation, always; if not, it is known now which function does not."""
        key = noticed if noticed in functions else tuple(functions)
        needed = PROOF if test.limit(functions) < 25 else PROOF // 2
        while test.passed[key] < needed and not stop.is_set():
            failed = run_test(test, test.program, stop, functions)
            if failed:
                test.passed[key] = 0
                test.unreliable.add(failed)
                return False
            test.passed[key] += not stop.is_set()
        return True

    @functools.cached_property
    def sanitized(self):
        return SanitizedSearch(self)

    def search(self, mutation, objects, running):
        order = self.order(mutation, running)
        stop = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            try:
                results = list(pool.map(lambda one: self.one(*one, objects, stop), order))
            finally:
                stop.set()
        noticed = next((result for result in results if result), None)
        if noticed:
            self.earlier[mutation.path][noticed[0]] += 1
        return noticed


class SanitizedSearch(Search):
    """The same in the build with the address sanitizer."""

    def __init__(self, of):
        say("building with the address sanitizer, which is shown what survives")
        build(ASAN, "-DCMAKE_BUILD_TYPE=Debug", "-DTRAM_SANITIZE=address,undefined")
        tests = [test for test in tests_of(ASAN) if test.name in of.coverage.seconds]
        for test in tests:
            test.seconds, test.slower = of.coverage.seconds[test.name], SLOWER
            test.memory = None  # it reserves more than there is
            test.environment["ASAN_OPTIONS"] = f"{test.environment['ASAN_OPTIONS']}:hard_rss_limit_mb={MEMORY >> 20}"
        super().__init__(tests, of.coverage, Mutants(tests, ASAN), of.jobs, of.quick)

    def order(self, mutation, running):
        return super().order(mutation, running)[:min(len(running or ()), AT_MOST)]


# ---- Drawing --------------------------------------------------------------------------------------------------

def all_mutations():
    found = {}
    for folder in FOLDERS:
        for path in sorted((TREE / folder).rglob("*.[ch]")):
            name = str(path.relative_to(TREE))
            for mutation in operators.mutations_of(name, path.read_text(encoding="utf-8")):
                found.setdefault((name, mutation.line, mutation.new), mutation)
    return list(found.values())


def drawn(seed):
    """All mutations in the order in which the seed draws them."""
    generator = random.Random(seed)
    by_operator = collections.defaultdict(list)
    for mutation in all_mutations():
        by_operator[mutation.operator].append(mutation)
    for operator in sorted(by_operator):
        generator.shuffle(by_operator[operator])
    while by_operator:
        operator = generator.choice(sorted(by_operator))
        yield by_operator[operator].pop()
        if not by_operator[operator]:
            del by_operator[operator]


def equivalence(mutation):
    """What equivalents.txt calls it: no path, for files move."""
    return f"{mutation.operator} in {mutation.function or 'no function'}", mutation.old.strip(), mutation.new.strip()


def equivalents():
    """{mutation as equivalence() has it: reason}"""
    found = {}
    for block in re.split(r"\n\s*\n", EQUIVALENTS.read_text(encoding="utf-8")):
        lines = [line for line in block.strip().splitlines() if not line.startswith("#")]
        if not lines:
            continue
        if len(lines) < 4 or not lines[1].startswith("- ") or not lines[2].startswith("+ "):
            raise Trouble(f"{EQUIVALENTS.name}: this is no entry:\n{block}")
        found[lines[0], lines[1][2:].strip(), lines[2][2:].strip()] = " ".join(line.strip() for line in lines[3:])
    return found


# ---- The report -----------------------------------------------------------------------------------------------

def say(text):
    print(text, flush=True)


def show(number, mutation, verdict, seconds=None):
    took = f" ({seconds:.0f} s)" if seconds else ""
    say(f"{number:>4}  {mutation.path}:{mutation.line} {mutation.function or '-'}, {mutation.operator}: {verdict}{took}")
    if not verdict.startswith("noticed"):
        say(f"      - {mutation.old.strip()}\n      + {mutation.new.strip()}")


def table(results, column, of):
    groups = collections.defaultdict(collections.Counter)
    for mutation, verdict in results:
        groups[of(mutation)][verdict.split()[0]] += 1
    say(f"\n{column:<24}{'noticed':>9}{'survived':>10}{'equivalent':>12}")
    for name, counts in sorted(groups.items()):
        say(f"{name:<24}{counts['noticed']:>9}{counts['SURVIVED']:>10}{counts['equivalent:']:>12}")


def report(results, seconds):
    table(results, "operator", lambda mutation: mutation.operator)
    table(results, "folder", lambda mutation: str(pathlib.Path(mutation.path).parent))
    verdicts = collections.Counter(verdict.split()[0] for _, verdict in results)
    counted = verdicts["noticed"] + verdicts["SURVIVED"]
    share = 100 * verdicts["noticed"] / counted if counted else 100
    say(f"\n{verdicts['noticed']} of {counted} noticed: {share:.0f} %; {verdicts['SURVIVED']} survived, "
        f"{verdicts['equivalent:']} equivalent; {seconds:.0f} s")
    return share


# ---- All of it ------------------------------------------------------------------------------------------------

def prepare(jobs):
    """What looks for who notices."""
    say("building the tree as it is")
    build(RELEASE, "-DCMAKE_BUILD_TYPE=Release")
    coverage = Coverage(jobs)
    tests = [test for test in tests_of(RELEASE) if test.name in coverage.seconds]
    for test in tests:
        test.seconds = coverage.seconds[test.name]
    return tests, coverage


def tell_unreliable(search):
    for test in search.tests if search else ():
        for name in sorted(test.unreliable):
            say(f"{test.name}: {name} fails now and then without any mutation, and was not asked")


def wanted_ones(arguments):
    """(number, mutation) in the order of drawing, as many as may be needed."""
    for number, mutation in enumerate(drawn(arguments.seed), 1):
        if arguments.only is None:
            yield number, mutation
        elif re.fullmatch(r"[\d,]+", arguments.only):
            if str(number) in arguments.only.split(","):
                yield number, mutation
        elif arguments.only == mutation.operator or arguments.only in mutation.path:
            yield number, mutation


def count_of(arguments):
    """Numbers say how many there are."""
    if arguments.only and re.fullmatch(r"[\d,]+", arguments.only):
        return len(set(arguments.only.split(",")))
    return arguments.count


class Book:
    """What was found before the run was stopped."""

    def __init__(self, state, fresh):
        self.path = WORK / "results" / f"{state}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            self.path.unlink(missing_ok=True)
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.known = {tuple(key): verdict for key, verdict in map(json.loads, lines)}

    @staticmethod
    def key(mutation):
        return mutation.path, mutation.line, mutation.new

    def get(self, mutation, quick):
        """Who survived a quick run is asked again by one that is not."""
        verdict = self.known.get(self.key(mutation))
        return None if verdict and verdict.startswith(QUICK) and not quick else verdict

    def put(self, mutation, verdict):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps([self.key(mutation), verdict]) + "\n")


def judge(search, mutation):
    """One of: no mutation at all, noticed by …, SURVIVED …"""
    running, wanted = search.running(mutation)
    objects = search.mutants.make(mutation, wanted)
    if isinstance(objects, str):
        return f"none: {objects}"
    noticed = search.search(mutation, objects, running)
    if noticed:
        return f"noticed by {noticed[0]}: {noticed[1]}"
    if search.with_asan:
        objects = search.sanitized.mutants.make(mutation, wanted)
        noticed = None if isinstance(objects, str) else search.sanitized.search(mutation, objects, running)
        if noticed:
            return f"noticed under the address sanitizer by {noticed[0]}: {noticed[1]}"
    if search.quick:
        return f"{QUICK}: {len(running or ())} tests"
    return f"SURVIVED all tests, of which {len(running or ())} run it"


def sample(arguments, state):
    known = equivalents()
    ones, results, book, began = wanted_ones(arguments), [], Book(state, arguments.fresh), time.monotonic()
    search = None
    for number, mutation in ones:
        started, verdict = time.monotonic(), book.get(mutation, arguments.quick)
        if equivalence(mutation) in known:
            verdict = f"equivalent: {known[equivalence(mutation)]}"
        elif verdict is None:
            if search is None:
                tests, coverage = prepare(arguments.jobs)
                search = Search(tests, coverage, Mutants(tests), arguments.jobs, arguments.quick)
                search.with_asan = not arguments.no_asan
                began = started = time.monotonic()
            verdict = judge(search, mutation)
            book.put(mutation, verdict)
        if verdict.startswith("none"):
            if arguments.only:
                show(number, mutation, verdict)
            continue
        show(number, mutation, verdict, time.monotonic() - started)
        results.append((mutation, verdict))
        if len(results) >= count_of(arguments):
            break
    share = report(results, time.monotonic() - began)
    tell_unreliable(search)
    return share


def stale():
    """Entries of equivalents.txt that no line of the tree has any more."""
    there = {equivalence(mutation) for mutation in all_mutations()}
    return [entry for entry in equivalents() if entry not in there]


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--seed", type=int, default=1, help="what decides the order of drawing (1)")
    parser.add_argument("--count", type=int, default=20, metavar="K", help="how many (20)")
    parser.add_argument("--only", metavar="NUMBERS|OPERATOR|PATH",
                        help="of these numbers of the drawing, as 3,17; of this operator; or those whose path has this in it")
    parser.add_argument("--list", action="store_true", help="draw only; some of these may turn out to be none")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="test programs at a time (2)")
    parser.add_argument("--quick", action="store_true", help="ask only the tests that run the line, if there are any")
    parser.add_argument("--no-asan", action="store_true", help="do not show survivors to the address sanitizer's build")
    parser.add_argument("--at-least", type=float, default=0, metavar="PERCENT", help="fail if fewer are noticed")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run found")
    return parser.parse_args()


def main():
    arguments = parse()
    WORK.mkdir(parents=True, exist_ok=True)
    with open(WORK / "lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Trouble(f"another run uses {WORK}") from None
        copy_tree()
        if arguments.list:
            known = equivalents()
            for number, mutation in itertools.islice(wanted_ones(arguments), count_of(arguments)):
                show(number, mutation, f"equivalent: {known[equivalence(mutation)]}"
                     if equivalence(mutation) in known else "drawn")
            return 0
        share = sample(arguments, digest())
        for entry in stale():
            say(f"{EQUIVALENTS.name}: no line is like this any more: {entry[0]}: {entry[1]}")
        return 0 if share >= arguments.at_least else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Trouble as trouble:
        sys.exit(f"sample.py: {trouble}")
    except KeyboardInterrupt:
        sys.exit(130)
