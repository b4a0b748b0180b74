"""The release of the Long Range Arena (Tay et al. 2021): one archive, a folder for each task."""

from collections.abc import Mapping

from lru.dataloaders.files.fetch import Source

_ROOT = "lra_release/lra_release"


def lra_source(folder: str) -> Source:
    """The archive (7.7 GB), of which only `folder` is unpacked; its sha256 is not published."""
    return Source(
        "https://storage.googleapis.com/long-range-arena/lra_release.gz",
        None,
        "lra_release.gz",
        unpacked=f"{_ROOT}/{folder}",
        member=f"{_ROOT}/{folder}",
    )


def lra_places(folder: str) -> tuple[str, ...]:
    """Folders under the raw folder in which one of the release is looked for, first to last."""
    return folder, f"lra_release/{folder}", f"{_ROOT}/{folder}"


def lra_compares(sizes: Mapping[str, int], published: Mapping[str, int], examples: str) -> str:
    """The sentence for the card of files that are laid out like the release."""
    if sizes == published:
        return (
            "The splits of the Long Range Arena, as in published results, if the files are the "
            "released ones."
        )
    found, expected = (" / ".join(f"{size:,}" for size in of.values()) for of in (sizes, published))
    return (
        f"The files hold {found} {examples} instead of the published {expected}: numbers do not "
        "compare with published ones."
    )
