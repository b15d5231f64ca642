"""The demo's collection: the standard library's documentation, read from the running interpreter.

One document for each public module, class, function and method that has a docstring of its own. The
identity of a document is the name under which people know the object (`datetime.datetime.strptime`,
`asyncio.run`, `os.path.join`), however the library is laid out inside.
"""

import builtins
import importlib
import inspect
import itertools
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import msgspec

from bridge.records import Document, SourcePosition

Kind = Literal["module", "class", "function", "method"]

ENRICHED_FIELDS = ("name", "text")
"""The fields that are expanded and embedded: signatures are no sentences."""

_SIDE_EFFECTS = {"antigravity", "this", "rlcompleter", "readline", "idlelib", "turtledemo", "lib2to3", "test"}
"""Importing them opens a browser, prints, or changes the terminal; or they are programs, not a library."""

_NEEDS_TK = {"tkinter", "turtle"}
"""Left out even if Tk is installed, so that the collection is the same on every machine."""

_GONE_AFTER_3_11 = {"asynchat", "asyncore", "distutils", "imp", "smtpd"}
_GONE_AFTER_3_12 = {
    "aifc", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "mailcap", "msilib", "nis", "nntplib",
    "ossaudiodev", "pipes", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib",
}  # fmt: skip
_DEPRECATED_NAMES = {"sre_compile", "sre_constants", "sre_parse", "nturl2path"}

_INNER_NAMES = {"genericpath", "ntpath", "posixpath", "posix", "nt"}
"""The platform's halves of `os` and `os.path`: their contents are known by those names."""

_SKIPPED_MODULES = _SIDE_EFFECTS | _NEEDS_TK | _GONE_AFTER_3_11 | _GONE_AFTER_3_12 | _DEPRECATED_NAMES | _INNER_NAMES

_WITHOUT_PARTS = {
    "encodings",  # a hundred modules with the same few classes
    "pydoc_data",  # the language reference as data
}

_PARTS_WITHOUT_FILE = {"os": {"path"}, "collections": {"abc"}}
"""Modules that exist as an attribute and an entry of `sys.modules` only."""

_SKIPPED_PARTS = {"test", "tests", "idle_test", "__main__"}

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class DocumentationEntry:
    """The documentation of one object.

    `name` is the qualified name and the identity; `signature` is empty if Python knows none; `text` is the
    docstring without its indentation, never empty; `module` is the public module that `name` begins with.
    """

    name: str
    kind: Kind
    signature: str
    text: str
    module: str

    def to_document(self, offset: int) -> Document:
        """The entry as a document to ingest, at position `offset` of the collection."""
        return Document(
            doc_id=self.name,
            body=msgspec.json.encode(self),
            texts={field: getattr(self, field) for field in ENRICHED_FIELDS},
            position=SourcePosition("python-standard-library", offset),
        )


def standard_library() -> list[DocumentationEntry]:
    """The documentation of the running interpreter's standard library, ordered by name.

    An object listed by several modules counts once, see `_Listing.preference`. Docstrings that a class
    inherits or repeats from its base count for the base alone.
    """
    modules = dict(_public_modules())
    entries: dict[str, DocumentationEntry] = {}
    for name, module in modules.items():
        if text := _docstring(module):
            entries[name] = DocumentationEntry(name, "module", "", text, name)
    listings = _listings(modules)
    for listing in listings.values():
        kind: Kind = "class" if inspect.isclass(listing.value) else "function"
        _add(entries, listing.qualified_name, kind, listing.module, listing.value)
    for listing in list(listings.values()):
        if inspect.isclass(listing.value):
            for name, method in _own_methods(listing.value):
                # A method that its module also offers bound (`random.randint`) is known by that name.
                if _identity(method) not in listings:
                    _add(entries, f"{listing.qualified_name}.{name}", "method", listing.module, method)
    return [entries[name] for name in sorted(entries)]


def documents(entries: Sequence[DocumentationEntry]) -> Iterator[Document]:
    """The entries as documents to ingest, in order."""
    for offset, entry in enumerate(entries):
        yield entry.to_document(offset)


def _public_modules() -> Iterator[tuple[str, ModuleType]]:
    """The public modules that this platform can import, by the names that people import them by, packages before their
    parts."""
    for name in sorted(sys.stdlib_module_names - _SKIPPED_MODULES):
        if not name.startswith("_"):
            yield from _module_tree(name)


def _module_tree(name: str) -> Iterator[tuple[str, ModuleType]]:
    module = _import_module(name)
    if module is None:
        return
    yield name, module
    if name in _WITHOUT_PARTS:
        return
    parts = {part.name for part in pkgutil.iter_modules(getattr(module, "__path__", []))}
    parts |= _PARTS_WITHOUT_FILE.get(name, set())
    for part in sorted(parts - _SKIPPED_PARTS):
        if not part.startswith("_"):
            yield from _module_tree(f"{name}.{part}")


def _import_module(name: str) -> ModuleType | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a deprecated module is documented all the same
        try:
            return importlib.import_module(name)
        except Exception:  # noqa: BLE001 - modules made for another platform fail in many ways
            return None


@dataclass(frozen=True, slots=True)
class _Listing:
    """A class or function as one module lists it."""

    module: str
    name: str
    value: object

    @property
    def qualified_name(self) -> str:
        """The name people use: built-ins stand alone."""
        return self.name if self.module == "builtins" else f"{self.module}.{self.name}"

    @property
    def preference(self) -> tuple[bool, bool, bool, int, str, str]:
        """Orders the listings of one object, best first: as a built-in; by the module that defines it or
        a package above it; under its own name rather than an alias; by the module nearest to the root;
        then by the alphabet."""
        defined_in = _defining_module(self.value)
        at_home = defined_in == self.module or defined_in.startswith(f"{self.module}.")
        own_name = getattr(self.value, "__name__", self.name) == self.name
        depth = self.module.count(".")
        return (self.module != "builtins", not at_home, not own_name, depth, self.module, self.name)


def _listings(modules: Mapping[str, ModuleType]) -> dict[int, _Listing]:
    """The best listing of each public class and function, by the object's identity."""
    best: dict[int, _Listing] = {}
    for module_name, module in modules.items():
        for name in _listed_names(module):
            value = getattr(module, name, None)
            if not (inspect.isclass(value) or inspect.isroutine(value)):
                continue
            listing = _Listing(module_name, name, value)
            key = _identity(value)
            if key not in best or listing.preference < best[key].preference:
                best[key] = listing
    return best


def _listed_names(module: ModuleType) -> list[str]:
    """The names that a module offers: `__all__`, else the public ones that it did not import."""
    if (listed := getattr(module, "__all__", None)) is not None:
        return [name for name in listed if not name.startswith("_")]
    return [name for name, value in vars(module).items() if not name.startswith("_") and _is_native(value, module)]


def _is_native(value: object, module: ModuleType) -> bool:
    """Whether `module`, or the private one that holds its C code, defines `value`; the built-ins are all
    of the language's, wherever they are defined."""
    if module is builtins:
        return True
    return _defining_module(value).lstrip("_") in {module.__name__, ""}


def _defining_module(value: object) -> str:
    """The name of the module that defines a class or function; empty if unknown."""
    return getattr(value, "__module__", None) or ""


def _identity(value: object) -> int:
    """The id of an object, the same under all its names; a bound method has that of its function."""
    return id(getattr(value, "__func__", value))


def _own_methods(owner: type) -> Iterator[tuple[str, object]]:
    """The public methods that a class defines itself, unless their docstring repeats a base's."""
    for name, value in vars(owner).items():
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if name.startswith("_") or not inspect.isroutine(function):
            continue
        docstring = _docstring(function)
        if not any(_docstring(getattr(base, name, None)) == docstring for base in owner.__mro__[1:]):
            yield name, function


def _add(entries: dict[str, DocumentationEntry], name: str, kind: Kind, module: str, value: object) -> None:
    """Adds the entry of `value` if it has a docstring and its name is free."""
    text = _docstring(value)
    if not text or name in entries:
        return
    short_name = name.rpartition(".")[2]
    signature, text = _signature_and_text(value, short_name, text)
    entries[name] = DocumentationEntry(name, kind, signature, text, module)


def _docstring(value: object) -> str:
    """An object's own docstring without its indentation; empty if it has none."""
    docstring = getattr(value, "__doc__", None)
    return inspect.cleandoc(docstring).strip() if isinstance(docstring, str) else ""


def _signature_and_text(value: object, short_name: str, text: str) -> tuple[str, str]:
    """The signature from `inspect`, else from the first lines of a C docstring, and the rest of the text."""
    try:
        return short_name + _ADDRESS.sub("", str(inspect.signature(value))), text  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - many C callables have no signature, some have a broken one
        lines = text.splitlines()
        calls = list(itertools.takewhile(lambda line: line.startswith(f"{short_name}("), lines))
        rest = "\n".join(lines[len(calls) :]).strip()
        return (" ".join(calls), rest) if rest else (" ".join(calls), text)
