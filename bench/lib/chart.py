"""The picture of bench/run: server CPU per request as a multiple of bare epoll's, a panel per workload.

It is drawn on a card of its own, light or dark as the reader's system is, so it can be read on any page.
"""

import html

import harness

WIDE = 122       # of a panel, and of the gap after it
GAP = 18
LEFT = 214       # for the names
TOP = 78
ROW = 26
BAR = 16
ROOM = 36        # right of the longest bar, for its number
MOST = 2.0       # where the axis ends; longer bars are cut and say so
STYLE = """
.card { fill: #ffffff; stroke: #d0d7de }
text { fill: #1f2328 } .less { fill: #57606a }
.ours { fill: #0b6bcb } .theirs { fill: #9aa4b2 } .cut { fill: #ffffff }
.axis { stroke: #d0d7de } .floor { stroke: #1f2328 }
@media (prefers-color-scheme: dark) {
.card { fill: #0d1117; stroke: #30363d }
text { fill: #e6edf3 } .less { fill: #9198a1 }
.ours { fill: #4a9cf5 } .theirs { fill: #6e7681 } .cut { fill: #0d1117 }
.axis { stroke: #30363d } .floor { stroke: #e6edf3 }
}
"""


def text(x, y, content, size=12, anchor="start", bold=False, less=False):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
            + (' font-weight="bold"' if bold else "") + (' class="less"' if less else "")
            + f">{html.escape(content)}</text>")


def place(ratio):
    """Distance from the panel's left end."""
    return min(ratio, MOST) / MOST * (WIDE - ROOM)


def bar(x, y, name, column):
    ratio = column["median"]
    ours = name == "tram"
    shapes = [f'<rect x="{x}" y="{y}" width="{place(ratio):.1f}" height="{BAR}" rx="2" '
              f'class="{"ours" if ours else "theirs"}"/>']
    if ratio > MOST:
        # A cut through the end of a bar that is longer than the panel.
        cut = x + place(MOST) - 14
        shapes.append(f'<path d="M{cut:.1f} {y + BAR + 2} l5 {-BAR - 4} h4 l-5 {BAR + 4} z" class="cut"/>')
    # Not across the floor's line.
    shapes.append(text(x + max(place(ratio), place(1)) + 5, y + BAR - 4, f"{ratio:.2f}", bold=ours))
    return shapes


def panel(x, bottom, title, names, programs):
    shapes = [text(x, TOP - 14, title, bold=True)]
    for row, name in enumerate(names):
        shapes += bar(x, TOP + row * ROW, name, programs[name]["ratio"])
    floor = x + place(1)
    shapes.append(f'<line x1="{x}" y1="{TOP - 6}" x2="{x}" y2="{bottom}" class="axis"/>')
    shapes.append(f'<line x1="{floor:.1f}" y1="{TOP - 6}" x2="{floor:.1f}" y2="{bottom}" class="floor" '
                  'stroke-dasharray="3 3"/>')
    return shapes


def notes(document, workloads):
    machine, rounds = document["machine"], [len(document["rounds"][workload]) for workload in workloads]
    times = f"{min(rounds)}" if min(rounds) == max(rounds) else f"{min(rounds)} to {max(rounds)}"
    compiler = machine["compiler"].split(" ")[0] + " " + machine["compiler"].split(" ")[-1]
    return [
        f"Dashed: bare epoll, 1.00. Medians of {times} alternated rounds, each ratio taken within its round; one worker "
        "on one CPU, the load on another.",
        f"{machine['date']}; {machine['processor']}, {machine['cpus']} CPUs; Linux {machine['kernel']}; {compiler}; "
        + ", ".join(f"{name} {version}" for name, version in document["versions"].items()) + ".",
        "Reproduce: bench/run --svg docs/bench.svg",
    ]


def draw(document):
    """From what bench/run --json prints."""
    summary = document["summary"]
    workloads = [workload for workload in document["titles"] if summary[workload]]
    if not workloads:
        raise harness.BenchError("no workload had a quiet round: there is nothing to draw")
    names = [name for name in harness.LABELS if name != harness.FLOOR
             and all(name in summary[workload] for workload in workloads)]
    bottom = TOP + len(names) * ROW
    lines = notes(document, workloads)
    width = LEFT + len(workloads) * (WIDE + GAP) + 8
    height = bottom + 22 + 17 * len(lines)
    shapes = [text(20, 30, "Server CPU per request, as a multiple of bare epoll (shorter is better)", 15, bold=True)]
    for row, name in enumerate(names):
        shapes.append(text(LEFT - 12, TOP + row * ROW + BAR - 4, harness.LABELS[name], anchor="end", bold=name == "tram"))
    for number, workload in enumerate(workloads):
        shapes += panel(LEFT + number * (WIDE + GAP), bottom, document["titles"][workload], names, summary[workload])
    for number, line in enumerate(lines):
        shapes.append(text(20, bottom + 26 + 17 * number, line, 11, less=True))
    body = "\n".join(shapes)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" font-family="system-ui, sans-serif">\n'
            f"<title>Server CPU per request as a multiple of bare epoll</title>\n<style>{STYLE}</style>\n"
            f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8" class="card"/>\n{body}\n</svg>\n')
