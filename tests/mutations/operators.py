"""Where C code can be mutated by one line, and how: what tests/mutations/sample.py draws from.

The code is taken apart into tokens, so that comments, texts, assertions, probes and log lines stay as they are. A place
is inside a function, but for flags, which may also stand in a macro or in a table.
"""

import collections
import re

# A mutation: of which operator, in which function, which line (from 1) becomes which.
Mutation = collections.namedtuple("Mutation", "path line function operator old new")

TOKEN = re.compile(r"""
      (?P<comment>/\*.*?\*/|//[^\n]*)
    | (?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    | (?P<macro>(?<=\n)[ \t]*\#(?:\\\n|/\*.*?\*/|[^\n])*)
    | (?P<name>[A-Za-z_]\w*)
    | (?P<number>\.?\d(?:[\w.]|[eEpP][+-])*)
    | (?P<sign>->|\+\+|--|<<=|>>=|<<|>>|[<>=!+\-*/%&|^]=|&&|\|\||\.\.\.|[^\s\w])
    """, re.X | re.S)
KEYWORDS = {"if", "for", "while", "switch", "return", "sizeof", "else", "do", "goto", "case", "default", "break",
            "continue", "typedef", "_Alignof", "_Generic"}
# Calls of which nothing is mutated: they check, trace or tell a person something, and change nothing.
SPARED = re.compile(r"^(assert|static_assert|_Static_assert|\w*_ASSERT|\w*_DCHECK|\w*_EXPECT|\w*PROBE\w*|\w+_validate"
                    r"|(\w+_)?log(_\w+)?)$")
# Functions of which nothing is mutated: their bodies are assertions, which checked builds look at.
VALIDATOR = re.compile(r"(\w+_)?validate(_\w+)?$")
NEVER_AN_ANSWER = "EXFULL"  # an errno that nothing here ever gets
SWAPPED = {"==": "!=", "!=": "==", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "&&": "||", "||": "&&", "+": "-",
           "-": "+", "+=": "-=", "-=": "+=", "true": "false", "false": "true"}
NAME_OF_SWAP = {"==": "equality", "!=": "equality", "&&": "logic", "||": "logic", "true": "truth", "false": "truth",
                "<": "boundary", "<=": "boundary", ">": "boundary", ">=": "boundary",
                "+": "arithmetic", "-": "arithmetic", "+=": "arithmetic", "-=": "arithmetic"}

Token = collections.namedtuple("Token", "kind text line column")


def tokens_of(text):
    """The tokens, without comments. A macro is one; its code is not looked at, but for flags."""
    tokens, line, line_start, position = [], 1, 0, 0
    for match in TOKEN.finditer("\n" + text):
        start = match.start() - 1  # the line break in front is ours
        newlines = text.count("\n", position, start)
        if newlines:
            line += newlines
            line_start = text.rfind("\n", 0, start) + 1
        position = start
        if match.lastgroup != "comment":
            tokens.append(Token(match.lastgroup, match.group(), line, start - line_start))
    return tokens


def partners_of(tokens):
    """Index of each bracket's partner."""
    partners, opened = {}, []
    for index, token in enumerate(tokens):
        if token.kind == "sign" and token.text in "([{":
            opened.append(index)
        elif token.kind == "sign" and token.text in ")]}" and opened:
            partners[index] = opened.pop()
            partners[partners[index]] = index
    return partners


def functions_of(tokens, partners):
    """(name, index of its opening brace, of its closing one)"""
    found, index = [], 0
    while index < len(tokens):
        if tokens[index].text == "{" and index in partners:
            before = tokens[index - 1] if index else None
            if before and before.text == ")" and index - 1 in partners:
                found.append((tokens[partners[index - 1] - 1].text, index, partners[index]))
            index = partners[index]
        index += 1
    return found


class File:
    def __init__(self, path, text):
        self.path = path
        self.lines = text.split("\n")
        self.tokens = tokens_of(text)
        self.partners = partners_of(self.tokens)
        self.found = []

    def mutations(self):
        for name, first, last in functions_of(self.tokens, self.partners):
            if not VALIDATOR.match(name):
                self.function(name, first, last)
        self.flags_elsewhere()
        return self.found

    # ---- Writing down -----------------------------------------------------------------------------------------

    def add(self, function, operator, line, new):
        old = self.lines[line - 1]
        if new != old:
            self.found.append(Mutation(self.path, line, function, operator, old, new))

    def replace(self, function, operator, token, new):
        """The token by something else."""
        line = self.lines[token.line - 1]
        self.add(function, operator, token.line, line[:token.column] + new + line[token.column + len(token.text):])

    def cut(self, function, operator, first, last):
        """What lies between two tokens of one line, both included; a space in front goes with it."""
        line = self.lines[first.line - 1]
        before = line[:first.column]
        after = line[last.column + len(last.text):]
        if before.endswith(" ") and (after.startswith((" ", ")", ";", ",")) or not after):
            before = before[:-1] if before.strip() else before
        self.add(function, operator, first.line, before + after)

    # ---- Looking ----------------------------------------------------------------------------------------------

    def function(self, name, first, last):
        spared_until = first
        for index in range(first + 1, last):
            if index <= spared_until:
                continue
            token, following = self.tokens[index], self.tokens[index + 1]
            if token.kind == "name" and following.text == "(" and SPARED.match(token.text):
                spared_until = self.partners[index + 1]
                continue
            if self.begins_statement(index):
                self.statement(name, index, last)
            self.token(name, index)

    def begins_statement(self, index):
        before = self.tokens[index - 1]
        if before.text in ("{", "}", ";", "else", "do"):
            return True
        if before.text == ")" and index - 1 in self.partners:
            return self.tokens[self.partners[index - 1] - 1].text in ("if", "for", "while")
        return False

    def statement(self, function, index, end):
        """One that has a line of its own goes; what stays is `;`, which is right after an `if`, too."""
        first, last = self.tokens[index], None
        for after in range(index, end):
            if self.tokens[after].line != first.line:
                return
            if self.tokens[after].text == ";":
                last = after
                break
        if last is None or self.lines[first.line - 1][:first.column].strip():
            return
        if self.tokens[last + 1].line == first.line:
            return
        operator = self.kind_of_statement(index, last, end)
        if operator:
            indent = self.lines[first.line - 1][:first.column]
            self.add(function, operator, first.line, indent + ";")

    def kind_of_statement(self, index, last, end):
        first = self.tokens[index].text
        if first == "return":
            return "drop-return" if last + 1 != end else None  # the last one of a function is no early one
        if first in ("break", "continue"):
            return "drop-jump"
        if first == "(" and self.tokens[index + 1].text == "void":
            index += 3
        if self.tokens[index].text == "*":
            index += 1
        if self.tokens[index].kind != "name" or self.tokens[index].text in KEYWORDS:
            return None
        # An object or a function: a->b[i].c
        index += 1
        while self.tokens[index].text in ("->", ".", "["):
            index = self.partners[index] + 1 if self.tokens[index].text == "[" else index + 2
        sign = self.tokens[index].text
        if sign == "(" and self.partners[index] == last - 1:
            return "drop-call"
        if sign in ("=", "+=", "-=", "|=", "&=", "++", "--"):
            return "drop-assignment"
        return None

    def token(self, function, index):
        before, token, after = self.tokens[index - 1], self.tokens[index], self.tokens[index + 1]
        if token.kind == "number":
            self.number(function, index)
        elif token.kind == "name" and re.fullmatch(r"E[A-Z0-9]{2,}", token.text):
            self.replace(function, "errno", token, NEVER_AN_ANSWER)
        elif token.text == "if" and after.text == "(":
            self.condition(function, index + 1)
        elif token.text == "!":
            self.cut(function, "drop-not", token, token)
        elif token.text == "~":
            self.cut(function, "flag", token, token)
        elif token.text == "|":
            self.flag(function, index)
        elif token.text in ("+", "-"):
            if self.ends_operand(index - 1):
                self.replace(function, "arithmetic", token, SWAPPED[token.text])
        elif token.text in ("<", ">") and before.text == "include":
            pass
        elif token.text in SWAPPED:
            self.replace(function, NAME_OF_SWAP[token.text], token, SWAPPED[token.text])

    def ends_operand(self, index):
        """Whether an operand ends here, so that what follows is a binary sign: `a - b`, and not `(int)-1`."""
        token = self.tokens[index]
        if token.kind == "number" or token.text == "]":
            return True
        if token.kind == "name":
            return token.text not in KEYWORDS
        if token.text != ")" or index not in self.partners:
            return False
        inside = self.tokens[self.partners[index] + 1:index]
        is_cast = all(part.kind == "name" or part.text == "*" for part in inside) and inside and \
            re.match(r"(u?int\d*(_t)?|s?size_t|unsigned|long|char|const|struct|off_t)$", inside[0].text)
        return not is_cast

    def number(self, function, index):
        before, token, after = self.tokens[index - 1], self.tokens[index], self.tokens[index + 1]
        match = re.fullmatch(r"(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)", token.text)
        if not match or (before.text, after.text) == ("{", "}"):
            return
        value, base = int(match[1], 0 if match[1][:2] in ("0x", "0X") or match[1] == "0" else 10), match[1][:2].lower()
        if value > 1 and (before.text, after.text) == ("[", "]"):
            return  # the size of an array
        for other in (value + 1, value - 1) if value > 1 else (1 - value,):
            text = hex(other) if base == "0x" else str(other)
            self.replace(function, "constant", token, text + match[2])

    def condition(self, function, index):
        """if (…) on one line becomes if (!(…))."""
        opening, closing = self.tokens[index], self.tokens[self.partners[index]]
        if opening.line != closing.line:
            return
        line = self.lines[opening.line - 1]
        inside = line[opening.column + 1:closing.column]
        self.add(function, "negate", opening.line,
                 f"{line[:opening.column]}(!({inside})){line[closing.column + 1:]}")

    def flag(self, function, index):
        """A | B loses either."""
        before, token, after = self.tokens[index - 1], self.tokens[index], self.tokens[index + 1]
        if after.line == token.line and re.fullmatch(r"[A-Z][A-Z0-9_]+", after.text):
            self.cut(function, "flag", token, after)
        if before.line == token.line and re.fullmatch(r"[A-Z][A-Z0-9_]+", before.text):
            line = self.lines[token.line - 1]
            self.add(function, "flag", token.line, line[:before.column] + line[token.column + 2:])

    def flags_elsewhere(self):
        """In tables and in macros."""
        inside = [(first, last) for _, first, last in functions_of(self.tokens, self.partners)]
        for index, token in enumerate(self.tokens[1:-1], 1):
            if token.text == "|" and not any(first < index < last for first, last in inside):
                self.flag("", index)
            if token.kind == "macro" and re.match(r"\s*#\s*define\s+\w+\s", token.text):
                self.flags_of_macro(token)

    def flags_of_macro(self, macro):
        for offset, text in enumerate(macro.text.split("\n")):
            number = macro.line + offset
            for match in re.finditer(r"(\b[A-Z][A-Z0-9_]+) \| (?=[A-Z])|(?<=[A-Z0-9_]) \| [A-Z][A-Z0-9_]+\b", text):
                line = self.lines[number - 1]
                start = line.find(text) + match.start()
                self.add("", "flag", number, line[:start] + line[start + len(match.group()):])


def mutations_of(path, text):
    return File(path, text).mutations()
