"""--against: tram as it is here beside tram of another commit, and that one beside itself.

A round is three windows: the other commit, this tree, the other commit once more. Who begins changes from round to
round. The first window of the other commit is what the two others are divided by, so both ratios have the same noise,
and how far the second one strays tells what a ratio means on this machine today.
"""

import statistics
import subprocess
import tarfile
import time

import harness

LIMIT = 1.02    # of the median ratio
MOST_ROUNDS = 2  # times the wanted number; then the least disturbed ones are taken
PATIENCE_S = 60  # per workload, beyond which no more rounds are made than wanted


def git(*arguments):
    done = subprocess.run(["git", "-C", str(harness.ROOT), *arguments], capture_output=True, check=False)
    if done.returncode:
        raise harness.BenchError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def build_targets(name, targets):
    """(commit, its build folder). The other tree is unpacked below build/, without its history."""
    commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").decode().strip()[:12]
    folder = harness.ROOT / "build/against" / commit
    tree = folder / "tree"
    if not (folder / "unpacked").exists():
        tree.mkdir(parents=True, exist_ok=True)
        archive = folder / "tree.tar"
        archive.write_bytes(git("archive", "--format=tar", commit))
        with tarfile.open(archive) as file:
            file.extractall(tree)
        archive.unlink()
        (folder / "unpacked").touch()
    harness.build_targets(lambda _: targets, tree, folder / "build")
    return commit, folder / "build"


def build(name):
    """(commit, its server, ours)."""
    commit, folder = build_targets(name, ["bench-server-tram"])
    harness.build(["tram"])
    return commit, folder / "bench/servers/tram", harness.SERVERS / "tram"


def figures(window, disturbance):
    if not window["requests"]:
        raise harness.BenchError("no request was answered within a window")
    return {"cpu_us": window["server_ns"] / 1e3 / window["requests"],
            "requests_per_s": window["requests"] / window["window_ns"] * 1e9, "disturbance": disturbance(window)}


def rounds(measure, there, here, wanted, noise):
    """[{"old", "new", "old again"}]: the wanted number of quiet ones, or else the least disturbed."""
    programs = [("old", there), ("new", here), ("old again", there)]
    kept, end = [], time.monotonic() + PATIENCE_S
    for number in range(wanted * MOST_ROUNDS):
        if number >= wanted and time.monotonic() > end:
            break
        turn = number % len(programs)
        kept.append({name: measure(program) for name, program in programs[turn:] + programs[:turn]})
        if sum(disturbed(entry) <= noise for entry in kept) >= wanted:
            break
    return sorted(kept, key=disturbed)[:wanted]


def disturbed(entry):
    return max(window["disturbance"] for window in entry.values())


def spread(ratios):
    """The middle half is what the verdict goes by: the ends only grow with the number of rounds."""
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return {"median": statistics.median(ratios), "low": low, "high": high, "least": min(ratios), "most": max(ratios)}


def summarise(kept):
    new = spread([entry["new"]["cpu_us"] / entry["old"]["cpu_us"] for entry in kept])
    old = spread([entry["old again"]["cpu_us"] / entry["old"]["cpu_us"] for entry in kept])
    return {"old_us": statistics.median(entry["old"]["cpu_us"] for entry in kept),
            "new_us": statistics.median(entry["new"]["cpu_us"] for entry in kept), "new": new, "old": old,
            "rounds": len(kept), "disturbance": max(map(disturbed, kept)),
            "worse": new["median"] > LIMIT and new["median"] > old["high"]}


def print_table(commit, result, noise):
    print(f"this tree against {commit}: CPU per request, and the ratio within rounds: median, middle half, least-most")
    form = "{:<22}{:>8}{:>9}   {:<36}{:<36}{}"
    print(form.format("", "old µs", "new µs", "new / old", "old / old", ""))

    def cell(ratios):
        return "{median:.3f}  {low:.3f}-{high:.3f}  {least:.2f}-{most:.2f}".format(**ratios)
    for title, line in result.items():
        remarks = [f"MORE than {LIMIT}"] if line["worse"] else []
        if line["disturbance"] > noise:
            remarks.append(f"others had up to {line['disturbance']:.0f} % of the CPUs")
        print(form.format(title, f"{line['old_us']:.2f}", f"{line['new_us']:.2f}", cell(line["new"]), cell(line["old"]),
                          ", ".join(remarks)).rstrip())
