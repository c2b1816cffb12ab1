#!/usr/bin/env python3
# tram-check: release-only
"""The man pages: installed where they belong, without a warning of mandoc or groff, complete, and found by name.

The guide and the examples are installed beside them, and the links of the guide lead somewhere there, too.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(os.environ.get("TRAM_SOURCE_DIR") or pathlib.Path(__file__).parents[2]).resolve()
BUILD = pathlib.Path(os.environ.get("TRAM_BUILD_DIR") or ROOT / "build/release").resolve()
sys.path.insert(0, str(ROOT / "tests/support"))
from headers import Headers  # noqa: E402

NOT_INSTALLED = re.compile(r"(?:\.\./)+(?:tests|bench|include|core)\b")
problems = []


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True, **options)
    return done.returncode, done.stdout, done.stderr


def is_link(page):
    return page.read_text().startswith(".so ")


def check_warnings(pages, folder):
    """All in one folder, where mandoc finds those that they refer to."""
    for page in pages:
        (folder / page.name).symlink_to(page)
    names = [page.name for page in pages if not is_link(page)]
    if shutil.which("mandoc"):
        _, out, err = run("mandoc", "-Tlint", *names, cwd=folder)
        problems.extend((out + err).splitlines())
    else:
        print("no mandoc: only groff was asked")
    # All at once, as man does it with each.
    _, _, err = run("groff", "-ww", "-mandoc", "-t", "-K", "utf-8", "-Tutf8", "-z", *names, cwd=folder)
    problems.extend(err.splitlines())
    return len(names)


def check_functions(man, headers):
    """A page or a link for each function; what links lead to is there, and says it. What has one is declared."""
    functions = headers.functions
    for name in sorted(functions):
        page = man / f"man3/{name}.3"
        if not page.exists():
            yield f"no page for {name}"
            continue
        if is_link(page):
            page = man / page.read_text().split()[1]
        text = page.read_text()
        if not re.search(rf"^\.Nm {name}(?: ,)?$", text, re.M) or not re.search(rf"^(?:\.Fo )?{name}\b", text, re.M):
            yield f"{page.name} does not have {name}"
    topics = {"tram_" + name.removesuffix(".h") for name in headers.files}
    exported = {name for path in (ROOT / "docs/abi").glob("symbols*.txt") for name in path.read_text().split()}
    for name in sorted(exported | {page.stem for page in man.glob("man3/*.3")}):
        if name not in headers.names | topics:
            yield f"no header declares {name}"


def check_found(man):
    environment = dict(os.environ, MANPATH=str(man), LC_ALL="C.UTF-8")
    for name in "tram_transport_write", "tram_server_options", "tram", "tram-echo":
        status, out, _ = run("man", "-w", name, env=environment)
        if status or not out.startswith(str(man)):
            problems.append(f"man -w {name}: {out or 'nothing'}")
    run("mandb", "-c", "-q", man, env=environment)
    _, out, _ = run("apropos", "tram", env=environment)
    for name in "tram (7)", "tram_transport (3)", "tram_transport_write (3)", "tram-load (1)":
        if name not in out:
            problems.append(f"apropos tram does not find {name}")
    return len(out.splitlines())


def check_options(prefix, man):
    for program in sorted((prefix / "bin").glob("tram-*")):
        page = man / f"man1/{program.name}.1"
        if not page.exists():
            problems.append(f"no page for {program.name}")
            continue
        told = set(re.findall(r"^\.It Fl (-[\w-]+)", page.read_text(), re.M))
        known = set(re.findall(r"^  -(-[\w-]+)", run(program, "--help")[1], re.M))
        problems.extend(f"{page.name}: no {option}" for option in sorted(known - told))
        problems.extend(f"{page.name}: {option} is no option" for option in sorted(told - known))


def check_documents(prefix):
    documents = prefix / "share/doc/tram"
    for name in ("README.md", "CHANGELOG.md", "docs/guide/README.md", "docs/asyncio-map.md", "docs/rules.md",
                 "examples/README.md", "examples/tcp-proxy.c", "examples/asyncio/echo-server.c"):
        if not (documents / name).exists():
            problems.append(f"not installed: {name}")
    for page in [*documents.glob("docs/guide/*.md"), documents / "examples/README.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if not re.match(r"[a-z]+:", target) and not NOT_INSTALLED.match(target) and not (page.parent / target).exists():
                problems.append(f"{page.name}, installed: {target} is not there")


def check_debian(folder):
    """With the prefix of Debian's packages everything goes where its policy wants it: libraries to the directory of the
    architecture (multiarch), the rest under /usr/share. Pages are not compressed here: dh_compress does that, and what is
    /usr/local's stays readable."""
    if not pathlib.Path("/etc/debian_version").exists() or not shutil.which("dpkg-architecture"):
        print("no Debian: its places were not looked at")
        return
    triplet = run("dpkg-architecture", "-qDEB_HOST_MULTIARCH")[1].strip()
    build = folder / "debian"
    status, out, err = run("cmake", "-S", ROOT, "-B", build, "-G", "Ninja", "-DCMAKE_INSTALL_PREFIX=/usr",
                           "-DCMAKE_BUILD_TYPE=Release", "-DTRAM_TESTS=OFF", "-DTRAM_EXAMPLES=OFF")
    if status:
        problems.append(f"cmake for /usr: {out}{err}")
        return
    places = set(re.findall(r'DESTINATION "\$\{CMAKE_INSTALL_PREFIX\}/([^"]*)"', (build / "cmake_install.cmake").read_text()))
    wanted = {f"lib/{triplet}", f"lib/{triplet}/pkgconfig", f"lib/{triplet}/cmake/tram", "include/tram", "bin",
              "share/man", "share/doc/tram", "share/doc/tram/docs"}
    problems.extend(f"for Debian nothing goes to /usr/{place}" for place in sorted(wanted - places))
    problems.extend(f"for Debian something goes to /usr/{place}" for place in sorted(places - wanted))
    pc = (build / "tram.pc").read_text()
    if f"/lib/{triplet}\n" not in pc:
        problems.append(f"for Debian tram.pc says: {pc}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        prefix = pathlib.Path(folder) / "prefix"
        environment = {name: value for name, value in os.environ.items() if name != "DESTDIR"}
        subprocess.run(["cmake", "--install", BUILD, "--prefix", prefix], check=True, stdout=subprocess.DEVNULL,
                       env=environment)
        man = prefix / "share/man"
        pages = sorted(man.glob("man*/*"))
        if not pages:
            print("this build makes no man pages")
            return 77
        flat = pathlib.Path(folder) / "flat"
        flat.mkdir()
        headers = Headers.of(ROOT)
        problems.extend(check_functions(man, headers))
        # Does it find anything? A function that has another name.
        found = list(check_functions(man, headers.renamed("tram_transport_write_eof", "tram_transport_write_end")))
        assert {"no page for tram_transport_write_end", "no header declares tram_transport_write_eof"} <= set(found), found
        print(check_warnings(pages, flat), "pages,", len(headers.functions), "functions")
        print(check_found(man), "lines of apropos")
        check_options(prefix, man)
        check_documents(prefix)
        check_debian(pathlib.Path(folder))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
