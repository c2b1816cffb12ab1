"""What the public headers declare: functions, types, constants, macros. What they only mention does not count."""

import re

COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", re.M)
DIRECTIVE = re.compile(r"^[ \t]*#(?:\\\n|[^\n])*", re.M)
ENUM = re.compile(r"\benum\b\s*\w*\s*\{([^{}]*)\}")
BODY = re.compile(r"\{[^{}]*\}")
FUNCTION_TYPE = re.compile(r"typedef\b[^(;]*\(\s*\*\s*(\w+)\s*\)\s*\(")
FUNCTION = re.compile(r"\b(tram_\w+)\s*\(")


def code_of(text):
    """Without comments, which still have their lines."""
    return COMMENT.sub(lambda match: "\n" * match.group().count("\n"), text)


class Declared:
    """The names that a header declares; `functions` are the ones among them that can be called."""

    def __init__(self, text):
        code = code_of(text)
        self.names, self.functions = set(DEFINE.findall(code)), set()
        code = DIRECTIVE.sub("", code)
        for body in ENUM.findall(code):
            self.names |= set(re.findall(r"(?:^|,)\s*(\w+)", body))
        while BODY.search(code): # of structs, enums and inline functions
            code = BODY.sub(" BODY ", code)
        # After the body of an inline function there is no semicolon.
        for declaration in re.sub(r"\)\s*BODY", ");", code).split(";"):
            self.read(" ".join(declaration.split()))
        self.names |= self.functions

    def read(self, declaration):
        tag = re.search(r"\b(?:struct|enum|union) (\w+) BODY\b", declaration)
        if tag:
            self.names.add(tag.group(1))
        pointer = FUNCTION_TYPE.search(declaration)
        if pointer:
            self.names.add(pointer.group(1))
        elif re.match(r"(?:\w+ )*typedef\b", declaration) or re.match(r".*\bextern\b", declaration):
            self.names |= set(re.findall(r"(\w+)(?:\[\w*\])*$", declaration))
        else:
            self.functions |= set(FUNCTION.findall(declaration)[:1])


class Headers:
    """All of include/tram; `texts` are the contents of files by name."""

    def __init__(self, texts):
        self.texts = texts
        self.files = {name: Declared(text) for name, text in texts.items()}

    @classmethod
    def of(cls, root):
        return cls({path.name: path.read_text() for path in sorted((root / "include/tram").glob("*.h"))})

    @property
    def names(self):
        return set().union(*(file.names for file in self.files.values()))

    @property
    def functions(self):
        return set().union(*(file.functions for file in self.files.values()))

    def homes(self, name):
        return [file for file, declared in self.files.items() if name in declared.names]

    def renamed(self, name, new):
        """The same, but that the headers which declare it call it so. Others mention the old name still, and so do comments."""
        changed = Headers({})
        changed.texts, changed.files = dict(self.texts), dict(self.files)
        for home in self.homes(name):
            changed.texts[home] = re.sub(rf"\b{name}\b", new, code_of(self.texts[home])) + f"/* {name}() */\n"
            changed.files[home] = Declared(changed.texts[home])
        return changed
