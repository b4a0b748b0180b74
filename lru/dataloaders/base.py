"""Contract of a data set: options, a card, named splits, and the ways into the cache and out."""

import hashlib
import inspect
import json
import os
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from lru.dataloaders.files.fetch import Source, download, set_aside
from lru.dataloaders.files.fingerprints import fingerprints
from lru.dataloaders.files.unpack import ArchiveError, unpack
from lru.dataloaders.options import converted
from lru.dataloaders.store import cache
from lru.dataloaders.store.arrays import Split
from lru.dataloaders.store.card import (
    Card,
    Description,
    check_contents,
    make_card,
    read_card,
    write_card,
)
from lru.files import make_folder
from lru.registry import Registry, known_names

VERIFIED_ON_LOAD = 256 * 2**20
"""Cached arrays up to this many bytes are checked by sha256 at each load: at most half a second."""

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Prepared:
    """A data set ready to use.

    Attributes:
        card: what is known of it.
        splits: memory-mapped or in memory, by name; "train" is there, and "val" and "test" usually.
    """

    card: Card
    splits: Mapping[str, Split]

    @property
    def train(self) -> Split:
        """The split to train on."""
        return self._split("train")

    @property
    def val(self) -> Split:
        """The split to validate on."""
        return self._split("val")

    @property
    def test(self) -> Split:
        """The split to test on."""
        return self._split("test")

    def _split(self, name: str) -> Split:
        if name not in self.splits:
            raise AttributeError(
                f"{self.card.name} has no split {name!r}; it has {', '.join(self.splits)}"
            )
        return self.splits[name]


@dataclass(frozen=True)
class Dataset(ABC):
    """A data set: a frozen dataclass whose fields are the user's options, all with defaults.

    A new one is a file in `sets` with a subclass under `@register`. It states `name`,
    `sources` if it can be downloaded, `raw_files` if it reads files, and `build`.

    Attributes:
        name: what flags call it.
        sources: the public files that it can be made from.
        task: what is learned from it, by its registered name.
        aliases: other names that flags can use for it.
        variants: further names, each with the options that it stands for; options that are given
            win over them.
        class_names: what the classes are called, if not by their numbers.
        picture: rows and columns, if a row's steps are the pixels of an image in that order.
        separator: what stands between the tokens of a row when it is shown as text.
        split_names: of the splits that `build` writes; "train" must be there.
        optional_splits: those of them that `build` leaves out where its files have none.
        version: raised whenever `build` gives other arrays from the same files and options; outside
            this package that is seen by itself, from any change of the file that has the class.
    """

    name: ClassVar[str]
    sources: ClassVar[tuple[Source, ...]] = ()
    task: ClassVar[str] = "classification"
    aliases: ClassVar[tuple[str, ...]] = ()
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    class_names: ClassVar[tuple[str, ...]] = ()
    picture: ClassVar[tuple[int, int] | None] = None
    separator: ClassVar[str] = " "
    split_names: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    optional_splits: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    _code: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        # Now, since the file may change while the process runs.
        cls._code = _code_of(cls)

    def raw_files(self, raw_dir: Path) -> tuple[Path, ...]:
        """The files under `raw_dir` that `build` would read now; of many, their folders.

        Empty if it reads none, or if they have to be downloaded or unpacked first.
        """
        del raw_dir
        return ()

    @abstractmethod
    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Write all splits into the empty `folder`; all that `raw_files` names is there."""

    def download(self, raw_dir: StrPath, mirror: str | None = None) -> tuple[Path, ...]:
        """Fetch and unpack the sources into `raw_dir`, unless the files are there; the files.

        Args:
            raw_dir: where they go.
            mirror: base URL, or folder, to use instead of the sources' own.

        Raises:
            FileNotFoundError: if files are missing from a folder that is there, or from the source.
        """
        raw_dir = Path(raw_dir)
        found = self.raw_files(raw_dir)
        if found or not self.sources:
            return found
        for source in self.sources:
            if source.unpacked is not None and (raw_dir / source.unpacked).exists():
                raise FileNotFoundError(
                    f"{self.name}: {raw_dir / source.unpacked} is there, but has not all files; "
                    "complete it, or move it away to have it fetched"
                )
            fetch(source, raw_dir, mirror)
        found = self.raw_files(raw_dir)
        if not found:
            raise FileNotFoundError(
                f"{self.name}: {', '.join(source.filename for source in self.sources)} has not the "
                f"files that are expected in {raw_dir}"
            )
        return found

    def obtain(self, raw_dir: Path, mirror: str | None = None) -> tuple[Path, ...]:
        """The files that `prepare` needs, fetched if they are not there."""
        return self.download(raw_dir, mirror)

    def folder(self, cache_dir: StrPath) -> Path:
        """Name of its folder in the cache: its own, and a hash of options not by default."""
        changed = {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        }
        if not changed:
            return Path(cache_dir) / self.name
        text = json.dumps(changed, sort_keys=True)
        return Path(cache_dir) / f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    def prepare(self, raw_dir: StrPath, cache_dir: StrPath, *, mirror: str | None = None) -> Path:
        """Put the data set into the cache, unless it is there; its folder.

        The folder appears whole or not at all: a killed process leaves nothing that could be taken
        for it, and of two processes at once the first to finish gives the folder. Files in
        `raw_dir` that changed since are read again; files that went away are not missed. What a
        file outside this package made is made again if that file changed.

        Args:
            raw_dir: where downloaded files lie.
            cache_dir: where prepared data sets lie.
            mirror: base URL, or folder, to use instead of the sources' own.

        Raises:
            CacheError: if what is there is damaged.
            OSError: if the cache cannot be written to.
            ValueError: if `build` gave no split of a name, one without rows, or wrong ids or
                labels.
        """
        raw_dir, folder = Path(raw_dir), self.folder(cache_dir)
        if self._is_current(folder, fingerprints(self.raw_files(raw_dir), raw_dir)):
            return folder
        read = fingerprints(self.obtain(raw_dir, mirror), raw_dir)
        make_folder(folder.parent, "dir_name, or cache_dir,")
        with cache.staging(folder) as partial:
            description = self.build(raw_dir, partial)
            splits = {split: cache.read_split(partial, split) for split in self._written(partial)}
            card = make_card(
                description,
                splits,
                name=self.name,
                version=self.version,
                options=asdict(self),
                raw_files=read,
                code=self._code,
            )
            check_contents(card, splits)
            write_card(card, partial)
            cache.publish(partial, folder, lambda: self._is_current(folder, read))
        return folder

    def load(
        self,
        raw_dir: StrPath,
        cache_dir: StrPath,
        *,
        verify: bool = False,
        mirror: str | None = None,
    ) -> Prepared:
        """The data set, prepared if need be and memory-mapped.

        Args:
            raw_dir: where downloaded files lie.
            cache_dir: where prepared data sets lie.
            verify: check the arrays by sha256, however large they are.
            mirror: base URL, or folder, to use instead of the sources' own.

        Raises:
            CacheError: if the arrays are not what the card says.
        """
        self.prepare(raw_dir, cache_dir, mirror=mirror)
        return self.stored(cache_dir, verify=verify)

    def stored(self, cache_dir: StrPath, *, verify: bool) -> Prepared:
        """The data set as it lies in the cache, memory-mapped.

        Args:
            cache_dir: where prepared data sets lie.
            verify: check the arrays by sha256, however large they are.

        Raises:
            CacheError: if it is not there, or the arrays are not what the card says.
        """
        folder = self.folder(cache_dir)
        card = read_card(folder)
        splits = {split: cache.read_split(folder, split) for split in card.splits}
        if verify or cache.size_in_bytes(splits) <= VERIFIED_ON_LOAD:
            if cache.checksum(splits) != card.checksum:
                raise cache.damaged(folder, "the arrays do not have the card's checksum")
        elif any(len(split) != card.splits[name]["examples"] for name, split in splits.items()):
            raise cache.damaged(folder, "the splits do not have the card's sizes")
        return Prepared(card, splits)

    def _written(self, folder: Path) -> list[str]:
        """The splits that `build` has written.

        Raises:
            ValueError: naming the first that it should have written.
        """
        written = []
        for split in self.split_names:
            if cache.file_of(folder, split, "labels").exists():
                written.append(split)
            elif split not in self.optional_splits:
                raise ValueError(
                    f"{self.name}: build has written no split {split!r}, but split_names are "
                    f"{', '.join(self.split_names)}"
                )
        return written

    def _is_current(self, folder: Path, found: dict[str, list[int]]) -> bool:
        if not folder.exists():
            return False
        try:
            card = read_card(folder)
        except cache.CacheError:
            if folder.exists():
                raise
            # Another process is about to replace it.
            return False
        same_maker = (card.name, card.version) == (self.name, self.version)
        same_options = card.options == asdict(self)
        needed, known = {*self.split_names} - {*self.optional_splits}, {*self.split_names}
        same_splits = needed <= card.splits.keys() <= known
        same_files = not found or card.raw_files == found
        same_code = not self._code or card.code == self._code
        return same_maker and same_options and same_splits and same_files and same_code


def _code_of(kind: type[Dataset]) -> str:
    """Hex sha256 of the files outside this package that have the class and those it derives from.

    Empty if there are none, or none that can be read: a class typed into a notebook.
    """
    package = __name__.partition(".")[0]
    digest = ""
    for ancestor in reversed(kind.__mro__):
        if not issubclass(ancestor, Dataset) or ancestor.__module__.partition(".")[0] == package:
            continue
        try:
            content = Path(inspect.getfile(ancestor)).read_bytes()
        except (TypeError, OSError):
            continue
        digest = hashlib.sha256(digest.encode() + content).hexdigest()
    return digest


DATASETS: Registry[type[Dataset]] = Registry("data set")

DatasetType = TypeVar("DatasetType", bound=type[Dataset])


def register(dataset: DatasetType) -> DatasetType:
    """Class decorator: file a data set under its `name`, its `aliases` and its `variants`.

    Raises:
        ValueError: if it has no split to train on.
    """
    if "train" not in dataset.split_names:
        raise ValueError(
            f"{dataset.name}: split_names must have 'train', got {', '.join(dataset.split_names)}"
        )
    DATASETS.register(dataset.name, *dataset.aliases, *dataset.variants)(dataset)
    return dataset


def dataset_from_options(name: str, options: Mapping[str, Any] | None = None) -> Dataset:
    """The data set `name` with `options`, whose values may be strings as typed on a command line.

    Args:
        name: of the data set, or of one of its variants, whose options hold unless they are given.
        options: values by name; None for the defaults.

    Raises:
        UnknownNameError: if there is no such data set.
        ValueError: if it has no such option, or the value is not of the option's type.
    """
    kind = DATASETS[name]
    known = [field.name for field in fields(kind)]
    types_of = typing.get_type_hints(kind)
    values = {}
    for option, value in {**kind.variants.get(name, {}), **(options or {})}.items():
        if option not in known:
            raise ValueError(
                f"data set {name!r} has no option {option!r}; {known_names(option, known)}"
            )
        where = f"data set {name!r}: option {option!r}"
        values[option] = converted(where, value, types_of[option])
    return kind(**values)


def fetch(source: Source, raw_dir: Path, mirror: str | None = None) -> None:
    """Download a source, and unpack it if it is an archive.

    Raises:
        ArchiveError: if it cannot be unpacked; then it is set aside.
    """
    path = download(source, raw_dir, mirror)
    if source.unpacked is None:
        return
    try:
        unpack(path, raw_dir / source.unpacked, source.member)
    except ArchiveError as error:
        raise ArchiveError(f"{error}; it was set aside as {set_aside(path)}") from error


def check_at_least(dataset: Dataset, **least: int | float) -> None:
    """Check options that are numbers against their least values.

    Raises:
        ValueError: naming the option, its value and what is allowed.
    """
    for option, bound in least.items():
        value = getattr(dataset, option)
        if value < bound:
            raise ValueError(f"{dataset.name}: {option} is {value}, but must be at least {bound}")


def check_at_most(dataset: Dataset, **most: int | float) -> None:
    """Check options that are numbers against their largest values.

    Raises:
        ValueError: naming the option, its value and what is allowed.
    """
    for option, bound in most.items():
        value = getattr(dataset, option)
        if value > bound:
            raise ValueError(f"{dataset.name}: {option} is {value}, but must be at most {bound}")
