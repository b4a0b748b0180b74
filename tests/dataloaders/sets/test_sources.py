"""From an archive on a web server to arrays in the cache, for every data set that has a source."""

import dataclasses
import errno
import io
import tarfile
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from lru.dataloaders import DATASETS, Dataset
from lru.dataloaders.files import unpack
from lru.dataloaders.files.fetch import ChecksumError, DownloadError
from lru.dataloaders.files.unpack import ArchiveError
from lru.dataloaders.sets.aan import Aan
from lru.dataloaders.sets.cifar import Cifar, GreyCifar
from lru.dataloaders.sets.fashion_mnist import FashionMnist
from lru.dataloaders.sets.imdb import Imdb, ImdbWords
from lru.dataloaders.sets.listops import ListOps
from lru.dataloaders.sets.mnist import Mnist, PermutedMnist
from lru.dataloaders.sets.pathfinder import Pathfinder, Pathfinder64, Pathfinder128, Pathfinder256
from lru.dataloaders.sets.ptb import PennTreebank, PennTreebankCharacters
from lru.dataloaders.sets.shakespeare import Shakespeare
from lru.dataloaders.sets.speech_commands import SpeechCommands
from lru.dataloaders.sets.wikipedia import Enwik8, Text8
from lru.dataloaders.sets.wikitext import WikiText2, WikiText103
from lru.dataloaders.store.writers import RaggedWriter

from ..site import Site
from . import (
    test_aan,
    test_cifar,
    test_corpora,
    test_idx,
    test_imdb,
    test_listops,
    test_pathfinder,
    test_speech_commands,
)

LRA = "lra_release/lra_release"

Write = Callable[[Path], object]
ARCHIVES: list[tuple[Dataset, Write]] = [
    (Cifar(n_val=2), test_cifar.write),
    (GreyCifar(n_val=2), test_cifar.write),
    (Imdb(n_val=1), test_imdb.write),
    (ImdbWords(n_val=1), test_imdb.write),
    (Mnist(n_val=2), lambda root: test_idx.write(root, Mnist.places[0], compress=True)),
    (PermutedMnist(n_val=2), lambda root: test_idx.write(root, Mnist.places[0], compress=True)),
    (FashionMnist(n_val=2), lambda root: test_idx.write(root, FashionMnist.places[0], True)),
    *(
        (kind(), lambda root, kind=kind: test_corpora.write_words(root, kind))
        for kind in (PennTreebank, PennTreebankCharacters, WikiText2, WikiText103)
    ),
    *(
        (kind(n_val=3, n_test=3), lambda root, kind=kind: test_corpora.write_text(root, kind))
        for kind in (Enwik8, Text8, Shakespeare)
    ),
    (Aan(), lambda root: test_aan.write(root, place=f"{LRA}/tsv_data")),
    (ListOps(source="official"), lambda root: test_listops.official(root, f"{LRA}/listops-1000")),
    *(
        (
            kind(source="official"),
            lambda root, side=kind.side: test_pathfinder.write(
                root, place=f"{LRA}/pathfinder{side}", side=side
            ),
        )
        for kind in (Pathfinder, Pathfinder64, Pathfinder128, Pathfinder256)
    ),
    (SpeechCommands(), lambda root: test_speech_commands.write(root, place=".")),
]


def archive_of(folder: Path, *extra: tarfile.TarInfo) -> bytes:
    """A compressed tar of what is in a folder, and of further entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
        for entry in extra:
            tar.addfile(entry)
    return out.getvalue()


def serve(
    site: Site, monkeypatch: pytest.MonkeyPatch, dataset: Dataset, write: Write, tmp: Path
) -> None:
    """Put the sources of a data set on the site, and what is published about them in its class."""
    official = tmp / "official"
    official.mkdir(exist_ok=True)
    write(official)
    changed = []
    for source in dataset.sources:
        whole = source.unpacked is not None
        content = archive_of(official) if whole else (official / source.filename).read_bytes()
        site.files[source.filename] = content
        digest = source.sha256 and sha256(content).hexdigest()
        url = f"{site.url}/{source.filename}"
        changed.append(dataclasses.replace(source, url=url, sha256=digest))
    monkeypatch.setattr(type(dataset), "sources", tuple(changed))


def test_every_source_is_here():
    tested = {source for dataset, _ in ARCHIVES for source in dataset.sources}
    assert tested == {source for kind in DATASETS.values() for source in kind.sources}


@pytest.mark.parametrize(
    ("dataset", "write"), ARCHIVES, ids=[dataset.name for dataset, _ in ARCHIVES]
)
def test_archives_are_fetched_unpacked_and_read_once(
    site, monkeypatch, tmp_path, raw_dir, cache_dir, dataset, write
):
    serve(site, monkeypatch, dataset, write, tmp_path)
    site.breaks_after = after = max(map(len, site.files.values())) * 2 // 5
    card = dataset.load(raw_dir, cache_dir).card
    assert all(figures["examples"] for figures in card.splits.values())
    assert list(card.raw_files)
    fetched = len(site.requests)
    # Each file comes in as many pieces as it breaks into.
    assert fetched == sum(-(-len(content) // after) for content in site.files.values())
    assert [path for path in raw_dir.rglob("*") if path.suffix in (".part", ".partial")] == []
    assert dataset.load(raw_dir, cache_dir).card == card
    assert dataset.load(raw_dir, tmp_path / "another cache").card == card
    assert len(site.requests) == fetched
    assert (
        dataset.load(tmp_path / "official", tmp_path / "third cache").card.checksum == card.checksum
    )


def test_an_archive_that_the_user_put_there_is_not_fetched(
    site, monkeypatch, tmp_path, raw_dir, cache_dir
):
    dataset = Cifar(n_val=2)
    serve(site, monkeypatch, dataset, test_cifar.write, tmp_path)
    (raw_dir / "cifar-10-python.tar.gz").write_bytes(site.files["cifar-10-python.tar.gz"])
    dataset.prepare(raw_dir, cache_dir)
    assert site.requests == []


def left_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_wrong_checksum_sets_the_archive_aside_and_makes_nothing(
    site, monkeypatch, tmp_path, raw_dir, cache_dir
):
    dataset = Cifar(n_val=2)
    serve(site, monkeypatch, dataset, test_cifar.write, tmp_path)
    whole = site.files["cifar-10-python.tar.gz"]
    site.files["cifar-10-python.tar.gz"] = whole[:-1] + b"x"
    with pytest.raises(ChecksumError, match=r"cifar-10-python\.tar\.gz has sha256 .* is expected"):
        dataset.prepare(raw_dir, cache_dir)
    assert left_in(raw_dir) == ["cifar-10-python.tar.gz.corrupt"]
    assert not cache_dir.exists()
    site.files["cifar-10-python.tar.gz"] = whole
    dataset.prepare(raw_dir, cache_dir)


def test_a_source_that_is_gone_says_what_to_do(site, monkeypatch, tmp_path, raw_dir, cache_dir):
    dataset = Imdb(n_val=1)
    serve(site, monkeypatch, dataset, test_imdb.write, tmp_path)
    site.files.clear()
    with pytest.raises(DownloadError, match=r"HTTP Error 404.*put it at .*aclImdb_v1\.tar\.gz"):
        dataset.prepare(raw_dir, cache_dir)
    assert left_in(raw_dir) == []
    assert not cache_dir.exists()


def entry(name: str, kind: bytes, to: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, to
    return made


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (entry("../x", tarfile.REGTYPE), "holds '../x', which may lie outside"),
        (entry("/tmp/x", tarfile.REGTYPE), "holds '/tmp/x', which may lie outside"),
        (entry(f"{LRA}/s", tarfile.SYMTYPE, "/etc"), "is neither a file nor a folder"),
        (entry(f"{LRA}/h", tarfile.LNKTYPE, "x"), "is neither a file nor a folder"),
        (entry(f"{LRA}/d", tarfile.CHRTYPE), "is neither a file nor a folder"),
        (None, "is truncated, damaged or no archive"),
    ],
)
def test_a_bad_archive_of_unknown_checksum_leaves_nothing_and_the_next_is_taken(
    site, monkeypatch, tmp_path, raw_dir, cache_dir, bad, message
):
    ((dataset, write),) = [pair for pair in ARCHIVES if isinstance(pair[0], Aan)]
    serve(site, monkeypatch, dataset, write, tmp_path)
    whole = site.files["lra_release.gz"]
    if bad is None:
        site.files["lra_release.gz"] = whole[: len(whole) // 2]
    else:
        site.files["lra_release.gz"] = archive_of(tmp_path / "official", bad)
    with pytest.raises(ArchiveError, match=rf"lra_release\.gz .*{message}.*set aside as"):
        dataset.prepare(raw_dir, cache_dir)
    assert left_in(raw_dir) == ["lra_release", "lra_release.gz.corrupt", LRA]
    assert not cache_dir.exists()
    site.files["lra_release.gz"] = whole
    dataset.prepare(raw_dir, cache_dir)
    assert "lra_release.gz.sha256" in left_in(raw_dir)


def test_a_full_disk_while_unpacking_or_building_leaves_the_archive_only(
    site, monkeypatch, tmp_path, raw_dir, cache_dir
):
    dataset = Imdb(n_val=1)
    serve(site, monkeypatch, dataset, test_imdb.write, tmp_path)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(unpack, "_write", full)
        with pytest.raises(OSError, match="No space left"):
            dataset.prepare(raw_dir, cache_dir)
    assert left_in(raw_dir) == ["aclImdb_v1.tar.gz"]
    with monkeypatch.context() as patch:
        patch.setattr(RaggedWriter, "append", full)
        with pytest.raises(OSError, match="No space left"):
            dataset.prepare(raw_dir, cache_dir)
    assert left_in(cache_dir) == []
    assert len(dataset.load(raw_dir, cache_dir).test) == 4
    assert len(site.requests) == 1


def test_a_folder_that_lacks_files_is_not_touched(site, monkeypatch, tmp_path, raw_dir, cache_dir):
    dataset = Cifar(n_val=2)
    serve(site, monkeypatch, dataset, test_cifar.write, tmp_path)
    test_cifar.write(raw_dir)
    (raw_dir / "cifar-10-batches-py" / "data_batch_2").unlink()
    before = left_in(raw_dir)
    with pytest.raises(FileNotFoundError, match="cifar-10-batches-py is there, but has not all"):
        dataset.prepare(raw_dir, cache_dir)
    assert left_in(raw_dir) == before
    assert site.requests == []


def test_an_archive_without_the_files_is_an_error(site, monkeypatch, tmp_path, raw_dir, cache_dir):
    dataset = Cifar(n_val=2)
    write = test_cifar.write
    serve(site, monkeypatch, dataset, lambda root: (write(root), _drop(root)), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"tar\.gz has not the files that are expected"):
        dataset.prepare(raw_dir, cache_dir)


def _drop(root: Path) -> None:
    (root / "cifar-10-batches-py" / "test_batch").unlink()


def test_two_at_once_fetch_once_and_both_get_it(site, monkeypatch, tmp_path, raw_dir, cache_dir):
    dataset = Cifar(n_val=2)
    serve(site, monkeypatch, dataset, test_cifar.write, tmp_path)
    checksums = []
    threads = [
        threading.Thread(
            target=lambda: checksums.append(dataset.load(raw_dir, cache_dir).card.checksum)
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(checksums) == 3
    assert len(set(checksums)) == 1
    assert len(site.requests) == 1
    assert left_in(cache_dir)[0] == dataset.folder("").name
