"""Names that flags can take: one registry a room, filled by the files that define things."""

import difflib
import importlib
import itertools
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
Entry = TypeVar("Entry")


class UnknownNameError(ValueError, KeyError):
    """A name that no entry has; the message lists the names that exist."""

    # A KeyError, as mappings promise, but without its quotes around the message.
    __str__ = ValueError.__str__


def suggestion(name: str, known: Iterable[str]) -> str:
    """End of a message about an unknown name: the known one that it begins, or is most like.

    Empty if it is like none; of several the first.
    """
    known = list(known)
    begun = [entry for entry in known if name and entry.startswith(name.lower())]
    # `cifar10` is like the beginning of `cifar-classification`, not like the whole.
    like = {entry.split("-")[0]: entry for entry in reversed(known)}
    like |= {entry: entry for entry in known}
    close = [like[part] for part in difflib.get_close_matches(name.lower(), like, n=1)]
    return "".join(f"; did you mean {entry!r}?" for entry in (begun or close)[:1])


def known_names(name: str, known: Iterable[str]) -> str:
    """End of a message about an unknown name: the names that exist, and a suggestion."""
    known = list(known)
    return f"known: {', '.join(known) or 'none'}{suggestion(name, known)}"


class Registry(Mapping[str, T], Generic[T]):
    """Entries of one kind by name, in order of registration; aliases resolve but are not listed.

    Attributes:
        kind: what an entry is, in the singular, for messages ("scan method").
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, T] = {}
        self._aliases: dict[str, str] = {}

    def register(self, name: str, *aliases: str) -> Callable[[Entry], Entry]:
        """Decorate an entry to file it under `name`; its own type stays known.

        Raises:
            ValueError: if `name` or an alias is already taken.
        """

        def decorate(entry: Entry) -> Entry:
            for new in (name, *aliases):
                if new in self._entries or new in self._aliases:
                    raise ValueError(f"{self.kind} {new!r} is registered twice")
            self._entries[name] = cast(T, entry)
            self._aliases.update(dict.fromkeys(aliases, name))
            return entry

        return decorate

    def resolve(self, name: str) -> str:
        """The listed name for a name or an alias.

        Raises:
            UnknownNameError: if there is no such entry.
        """
        name = self._aliases.get(name, name)
        if name not in self._entries:
            known = [*self._entries, *self._aliases]
            raise UnknownNameError(
                f"unknown {self.kind} {name!r}; known: {', '.join(sorted(known)) or 'none'}"
                f"{suggestion(name, known)}"
            )
        return name

    def __getitem__(self, name: str) -> T:
        return self._entries[self.resolve(name)]

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._aliases

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class Joined(Mapping[str, T], Generic[T]):
    """Entries of several registries, whose names are looked up as in one.

    Attributes:
        kind: what an entry is, in the singular, for messages.
    """

    def __init__(self, kind: str, *registries: Registry[Any]):
        self.kind = kind
        self._registries = registries

    def resolve(self, name: str) -> str:
        """The listed name for a name or an alias.

        Raises:
            UnknownNameError: if there is no such entry.
        """
        return self._holder(name).resolve(name)

    def _holder(self, name: str) -> Registry[Any]:
        for registry in self._registries:
            if name in registry:
                return registry
        raise UnknownNameError(f"unknown {self.kind} {name!r}; {known_names(name, sorted(self))}")

    def __getitem__(self, name: str) -> T:
        return self._holder(name)[name]

    def __contains__(self, name: object) -> bool:
        return any(name in registry for registry in self._registries)

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(self._registries)

    def __len__(self) -> int:
        return sum(map(len, self._registries))


def import_submodules(package: ModuleType) -> None:
    """Import every module of `package`, so that each can register what it defines."""
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package.__name__}.{module.name}")
