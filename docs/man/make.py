#!/usr/bin/env python3
"""Makes the man pages: make.py VERSION HEADERS-FOLDER OUT-FOLDER

Section 3 comes from the headers' comments, a page for each header, with a link to it for each function and type.
Sections 1 and 7 lie beside this file and are copied. All pages are mdoc(7).
"""

import pathlib
import re
import shutil
import sys
import textwrap

HERE = pathlib.Path(__file__).resolve().parent
NOT_A_PAGE = {"tram", "export"}
PAGES = set() # names of the headers that have one
WIDTH = 76


# ---- Headers ----

class Group:
    """A comment and the declarations that follow it without an empty line."""

    def __init__(self, comment):
        self.comment, self.declarations = comment, []


def comment_text(raw):
    """Lines of a comment without its decoration."""
    raw = re.sub(r"^/\*+|\*+/$", "", raw.strip())
    lines = [re.sub(r"^\s*\* ?", "", line) if i else line.strip() for i, line in enumerate(raw.split("\n"))]
    return textwrap.dedent("\n".join(lines)).strip("\n").rstrip()


TOKEN = re.compile(
    r"(?P<comment>/\*.*?\*/)|(?P<define>^#define[^\n]*(?:\\\n[^\n]*)*)|(?P<directive>^#[^\n]*)|(?P<empty>\n[ \t]*(?=\n))|"
    r"(?P<marks>TRAM_(?:BEGIN|END)_DECLS)|(?P<code>[^\s])", re.S | re.M)


def declaration_at(text, start):
    """Up to the semicolon outside of braces; of an inline function up to its body."""
    depth, at = 0, start
    inline = text.startswith("static inline", start)
    while True:
        if text.startswith("/*", at):
            at = text.index("*/", at) + 2
            continue
        depth += {"{": 1, "}": -1, "(": 1, ")": -1}.get(text[at], 0)
        at += 1
        if depth == 0 and text[at - 1] == ("}" if inline else ";"):
            return at


def parse(text):
    """The comment on top, and [title, [group, …]] of each section."""
    top, sections, at = None, [["", []]], 0
    group = None # None: the next declaration begins one
    while match := TOKEN.search(text, at):
        at = match.end()
        kind, piece = match.lastgroup, match.group()
        if kind == "comment" and top is None:
            top = comment_text(piece)
        elif kind == "comment" and (title := re.fullmatch(r"/\* ---- (.*) ---- \*/", piece)):
            sections.append([title.group(1), []])
            group = None
        elif kind == "comment":
            group = Group(comment_text(piece))
            sections[-1][1].append(group)
        elif kind == "empty":
            # A comment that stands alone is for the section.
            group = None
        elif kind in ("code", "define"):
            if kind == "define" and not re.match(r"#define \w+(\([^)]*\))? \S", piece):
                continue
            if kind == "code":
                at = declaration_at(text, match.start())
                piece = re.sub(r"^static inline (.*?\)) \{.*", r"TRAM_API \1;", text[match.start():at], flags=re.S)
            if group is None:
                group = Group("")
                sections[-1][1].append(group)
            group.declarations.append(piece)
    return top, sections


def function_of(declaration):
    match = re.match(r"TRAM_API\s+(.*?)(\w+)\((.*)\);$", " ".join(declaration.split()), re.S)
    if not match:
        return None
    result, name, parameters = match.groups()
    # A pointer to a function has commas of its own.
    parts, depth = [""], 0
    for character in parameters:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return result.strip(), name, [part.strip() for part in parts]


def names_of(declaration):
    function = function_of(declaration)
    if function:
        return [function[1]]
    match = (re.match(r"typedef [^{]*\(\*(\w+)\)\(", declaration, re.S) or re.search(r"^\}? ?(\w+);$", declaration, re.M)
             or re.match(r"typedef .*?(\w+);$", declaration, re.S))
    if declaration.startswith("typedef") and match:
        return [match.group(1)]
    match = re.match(r"(?:#define|struct|enum) (\w+)", declaration)
    return [match.group(1)] if match else []


# ---- mdoc ----

def escape(text):
    text = text.replace("\\", "\\e")
    text = re.sub(r"(?<![\w])-(?=\w)", r"\\-", text)
    text = "".join(character if ord(character) < 128 else f"\\[u{ord(character):04X}]" for character in text)
    return guard(text)


def guard(line):
    """No line of text begins as a macro does."""
    return re.sub(r"^([.'])", r"\\&\1", line)


WORD = re.compile(r"([(\[\"]*)(?:(\w+)\(\)|(TRAM_[A-Z]\w+|NULL)|(`[^`\s]+`)|(tram/\w+\.h))([)\].,;:!?\"]*)$")


def macro(word):
    """A word that is a name: its line of mdoc. None: it is plain text."""
    match = WORD.match(word)
    if not match:
        return None
    before, function, constant, quoted, header, after = match.groups()
    if "\"" in before + after or "[" in before or "]" in after:
        return None
    if function:
        line = f"Fn {function}"
    elif constant:
        line = f"Dv {constant}"
    elif quoted:
        line = f"Fa {escape(quoted[1:-1])}"
    elif header[5:-2] not in PAGES:
        line = f"In {header}"
    else:
        line = f"Xr tram_{header[5:-2]} 3"
    after = " ".join(after)
    if before:
        line = f"No \\&{before} Ns {line}"
    return f".{line} {after}".rstrip()


def running(text, own):
    """Running text: a line for each name, a new line for each sentence, none too long."""
    lines, current = [], []

    def flush():
        if current:
            lines.extend(guard(line) for line in textwrap.wrap(escape(" ".join(current)), WIDTH,
                                                                break_long_words=False, break_on_hyphens=False))
            current.clear()

    words = re.sub(r"`([^`\s][^`]*\s[^`]*[^`\s])`", lambda match: "'" + match.group(1) + "'", text).split()
    for word in words:
        line = macro(word)
        if line == f".Xr {own} 3" or line and line.startswith(f".Xr {own} 3 "):
            line = None # no page refers to itself
        if line:
            flush()
            lines.append(line)
        else:
            current.append(word)
            if re.search(r"[.!?][)\"']*$", word):
                flush()
    flush()
    return lines


def literal(text):
    lines = [".Bd -literal -offset indent"]
    for line in text.split("\n"):
        lines.append(escape(line) if line.strip() else "")
    while lines[-1] == "":
        lines.pop()
    return lines + [".Ed"]


def prose(text, own):
    """Paragraphs, code that is indented by four, and lists."""
    out = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.split("\n")
        if not paragraph.strip():
            continue
        at = 0
        while at < len(lines):
            end = at
            if lines[at].startswith("    "):
                while end < len(lines) and lines[end].startswith("    "):
                    end += 1
                out += literal(narrow(textwrap.dedent("\n".join(lines[at:end]))))
            elif re.match(r"\s*- ", lines[at]):
                while end < len(lines) and re.match(r"\s*- |\s{2,}", lines[end]):
                    end += 1
                out.append(".Bl -bullet -compact")
                for item in re.split(r"^\s*- ", "\n".join(lines[at:end]), flags=re.M)[1:]:
                    out += [".It", *running(item, own)]
                out.append(".El")
            else:
                while end < len(lines) and not re.match(r"    |\s*- ", lines[end]):
                    end += 1
                out += [".Pp", *running("\n".join(lines[at:end]), own)]
            at = end
    return out


def narrow(code):
    """Code of up to 120 columns as code of up to 76: a comment behind a line goes before it, long ones are broken."""
    out = []
    # A comment of several lines that begins behind code belongs to that line.
    code = re.sub(r"^([^\n/]*\S)[ \t]+(/\*(?:(?!\*/).)*\n.*?\*/)", lambda match: f"{match.group(1)} " + " ".join(
        re.sub(r"\n\s*\* ?", " ", match.group(2)).split()), code, flags=re.S | re.M)
    # One on lines of its own becomes one line, which is then broken anew.
    code = re.sub(r"^([ \t]*)(/\*(?:(?!\*/).)*\n.*?\*/)", lambda match: match.group(1) + " ".join(
        re.sub(r"\n\s*\*(?!/) ?", " ", match.group(2)).split()), code, flags=re.S | re.M)
    for line in code.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        match = re.fullmatch(r"(.*?\S)?\s*(/\*.*\*/|//.*)", line)
        if len(line) <= WIDTH:
            out.append(line)
        elif match:
            text = re.sub(r"^(?:/\*|//) ?| ?\*/$", "", match.group(2))
            wrapped = textwrap.wrap(text, WIDTH - len(indent) - 6, break_on_hyphens=False)
            out += [f"{indent}/* {wrapped[0]}" + (" */" if len(wrapped) == 1 else "")]
            out += [f"{indent} * {part}" for part in wrapped[1:]]
            if len(wrapped) > 1:
                out[-1] += " */"
            if match.group(1):
                out.append(match.group(1))
        else:
            out += textwrap.wrap(line, WIDTH, subsequent_indent=indent + "    ", break_long_words=False,
                                 break_on_hyphens=False)
    return "\n".join(out)


def synopsis(function):
    result, name, parameters = function
    if len(name) + max(map(len, parameters)) > WIDTH - 12: # groff breaks no line within these
        return literal("\n".join([f"{result}", f"{name}(", ",\n".join(f"    {part}" for part in parameters) + ");"]))
    lines = [f'.Ft "{result}"', f".Fo {name}"]
    return lines + [f'.Fa "{parameter}"' for parameter in parameters] + [".Fc"]


def describe(group, own):
    functions = [function[1] for function in map(function_of, group.declarations) if function]
    others = [declaration for declaration in group.declarations if not function_of(declaration)]
    text = prose(group.comment, own)
    out = []
    if functions and text:
        out = [".Pp", *(f".Fn {name} ," for name in functions[:-1]), f".Fn {functions[-1]} :"]
        if not any(line.startswith(".Bd") for line in text):
            text = [".Bd -filled -offset indent -compact", *text[1:], ".Ed"]
    out += text
    return out + literal(narrow("\n".join(others))) if others else out


def summary(top):
    """The first sentence, for NAME."""
    text = " ".join(top.split("\n\n")[0].split())
    text = re.split(r"(?<=[a-z)0-9])[.](?:\s|$)|(?<=\)): ", text)[0]
    text = re.sub(r"[`]", "", text)
    first, *rest = textwrap.wrap(escape(text.rstrip(" :,;")), WIDTH - 4, break_long_words=False, break_on_hyphens=False)
    return [f".Nd {first}", *map(guard, rest)]


def page(path, version, date, pages):
    own = f"tram_{path.stem}"
    text = path.read_text()
    top, sections = parse(re.sub(r"^#(?:ifndef|ifdef|endif|else|if)[^\n]*\n", "", text, flags=re.M))
    groups = [group for _, members in sections for group in members]
    declarations = [declaration for group in groups for declaration in group.declarations]
    names = [name for declaration in declarations for name in names_of(declaration)]
    functions = [function for function in map(function_of, declarations) if function]
    shown = [own] + [function[1] for function in functions if function[1] != own]
    out = [f".\\\" Made from include/tram/{path.name}: edit that.", f".Dd {date}", f".Dt {own.upper()} 3",
           ".Os", ".Sh NAME"]
    out += [f".Nm {name}" + (" ," if name != shown[-1] else "") for name in shown]
    out += [*summary(top), ".Sh SYNOPSIS", f".In tram/{path.name}"]
    for function in functions:
        out += synopsis(function)
    out += [".Sh DESCRIPTION", *prose(top, own)[1:]]
    for title, members in sections:
        if title:
            out.append(f".Ss {escape(title)}")
        for group in members:
            out += describe(group, own)
    others = sorted(set(re.findall(r"tram/(\w+)\.h", text)) & pages - {path.stem})
    out.append(".Sh SEE ALSO")
    out += [f".Xr tram_{other} 3 ," for other in others] + [".Xr tram 7"]
    return tidy(out), [name for name in names if name != own]


def tidy(lines):
    """Without a paragraph where one begins anyway."""
    out = []
    for line in lines:
        if line == ".Pp" and (out[-1] == ".Pp" or out[-1].startswith((".Sh", ".Ss"))):
            continue
        if out and out[-1] == ".Pp" and line.startswith((".Bd", ".Ss", ".Sh", ".Bl")):
            out.pop()
        out.append(line)
    return "\n".join(out) + "\n"


def main():
    version, headers, target = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    date = re.search(r"^\.Dd (.*)$", (HERE / "tram.7").read_text(), re.M).group(1)
    shutil.rmtree(target, ignore_errors=True)
    for section in "137":
        (target / f"man{section}").mkdir(parents=True)
        for source in HERE.glob(f"*.{section}"):
            text = source.read_text().replace("@version@", version)
            (target / f"man{section}" / source.name).write_text(text)
    paths = [path for path in sorted(headers.glob("*.h")) if path.stem not in NOT_A_PAGE]
    pages = {path.stem for path in paths}
    PAGES.update(pages)
    for path in paths:
        text, names = page(path, version, date, pages)
        (target / f"man3/tram_{path.stem}.3").write_text(text)
        for name in names:
            alias = target / f"man3/{name}.3"
            if name.startswith(("tram_", "TRAM_")) and not alias.exists() and name[5:] not in pages:
                alias.write_text(f".so man3/tram_{path.stem}.3\n")


if __name__ == "__main__":
    main()
