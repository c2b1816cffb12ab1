"""The picture of bench/run: server CPU per request as a multiple of bare epoll's, a panel per workload."""

import html

import harness

WIDE = 178       # of a panel
GAP = 22
LEFT = 236       # for the names
TOP = 74
ROW = 26
BAR = 16
MOST = 2.0       # where the axis ends; longer bars are cut and say so
OURS = "#0b6bcb"
THEIRS = "#9aa4b2"


def text(x, y, content, size=12, anchor="start", weight="normal", fill="#1f2328"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
            f'fill="{fill}">{html.escape(content)}</text>')


def place(ratio):
    """Distance from the panel's left end."""
    return min(ratio, MOST) / MOST * (WIDE - 34)


def bar(x, y, name, column):
    ratio = column["median"]
    ours = name == "tram"
    shapes = [f'<rect x="{x}" y="{y}" width="{place(ratio):.1f}" height="{BAR}" rx="2" '
              f'fill="{OURS if ours else THEIRS}"/>']
    if ratio > MOST:
        # A cut through the end of a bar that is longer than the panel.
        cut = x + place(MOST) - 14
        shapes.append(f'<path d="M{cut:.1f} {y + BAR + 2} l5 {-BAR - 4} h4 l-5 {BAR + 4} z" fill="#ffffff"/>')
    # Not across the floor's line.
    shapes.append(text(x + max(place(ratio), place(1)) + 5, y + BAR - 4, f"{ratio:.2f}", 12, weight="bold" if ours else "normal"))
    return shapes


def draw(result, titles, rounds):
    names = [name for name in harness.LABELS if name != harness.FLOOR
             and all(name in result[workload] for workload in titles)]
    width = LEFT + len(titles) * (WIDE + GAP)
    bottom = TOP + len(names) * ROW
    height = bottom + 44
    shapes = [text(20, 28, "Server CPU per request, as a multiple of bare epoll (shorter is better)", 15, weight="bold")]
    for row, name in enumerate(names):
        y = TOP + row * ROW
        shapes.append(text(LEFT - 12, y + BAR - 4, harness.LABELS[name], 12, "end",
                           "bold" if name == "tram" else "normal"))
    for number, (workload, title) in enumerate(titles.items()):
        x = LEFT + number * (WIDE + GAP)
        shapes.append(text(x, TOP - 14, title, 12, weight="bold"))
        for row, name in enumerate(names):
            shapes += bar(x, TOP + row * ROW, name, result[workload][name]["ratio"])
        floor = x + place(1)
        shapes.append(f'<line x1="{floor:.1f}" y1="{TOP - 6}" x2="{floor:.1f}" y2="{bottom}" stroke="#1f2328" '
                      'stroke-width="1" stroke-dasharray="3 3"/>')
        shapes.append(f'<line x1="{x}" y1="{TOP - 6}" x2="{x}" y2="{bottom}" stroke="#d0d7de"/>')
    shapes.append(text(20, bottom + 26, f"Dashed: bare epoll, 1.00. Medians of {rounds} alternated rounds, each ratio "
                       "taken within its round; one worker on one CPU. Reproduce: bench/run", 11, fill="#57606a"))
    body = "\n".join(shapes)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" font-family="system-ui, sans-serif">\n'
            f"<title>Server CPU per request as a multiple of bare epoll</title>\n"
            f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>\n{body}\n</svg>\n')
