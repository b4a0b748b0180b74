"""Speech Commands (Warden 2018): which word is said in a second of sound, sample by sample.

35 words as in Gu, Goel & Ré (2022), or the ten of Romero et al. (2022, CKConv).
"""

import wave
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int16
from tqdm import tqdm

from lru.dataloaders.base import Dataset, Description, check_at_least, register
from lru.dataloaders.files.fetch import Source
from lru.dataloaders.store.writers import DenseWriter

PLACES = (
    "SpeechCommands/speech_commands_v0.02",
    "speech_commands_v0.02",
    "speech_commands/0.0.2/SpeechCommands",
    "SpeechCommands",
)
"""Folders under the raw folder in which the unpacked files are looked for, first to last."""

TEN_WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
OTHER_WORDS = (
    "backward", "bed", "bird", "cat", "dog", "eight", "five", "follow", "forward", "four", "happy",
    "house", "learn", "marvin", "nine", "one", "seven", "sheila", "six", "three", "tree", "two",
    "visual", "wow", "zero",
)  # fmt: skip
LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}
PUBLISHED_SIZES = {
    "35": {"train": 84_843, "val": 9_981, "test": 11_005},
    "10": {"train": 24_482, "val": 5_246, "test": 5_247},
}

SAMPLES = 16_000
"""In a second; shorter clips are padded with silence."""


@register
@dataclass(frozen=True)
class SpeechCommands(Dataset):
    """Recognise a spoken word from the 16,000 samples of its sound."""

    name: ClassVar[str] = "speech-commands"
    aliases: ClassVar[tuple[str, ...]] = ("speech35-classification",)
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
            "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
            "speech_commands_v0.02.tar.gz",
            unpacked=PLACES[0],
        ),
    )
    class_names: ClassVar[tuple[str, ...]] = TEN_WORDS + OTHER_WORDS

    words: Literal["35", "10"] = "35"
    """all words, in the official splits; or ten, of whole seconds, 70 / 15 / 15 % by class"""
    seed: int = 0
    """of the splits of the ten words"""

    def __post_init__(self):
        check_at_least(self, seed=0)

    @property
    def _words(self) -> tuple[str, ...]:
        return self.class_names[: int(self.words)]

    def raw_files(self, raw_dir: Path) -> tuple[Path, ...]:
        """Both official lists and the folder of each word, from the first place with them all."""
        for place in PLACES:
            names = (*LISTS.values(), *self._words)
            files = tuple(raw_dir / place / name for name in names)
            if all(path.exists() for path in files):
                return files
        return ()

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Deal the clips out to the splits."""
        place = self.raw_files(raw_dir)[0].parent
        deal = self._official(place) if self.words == "35" else self._by_class(place)
        sizes: dict[str, int] = dict.fromkeys(self.split_names, 0)
        with ExitStack() as stack:
            writers: dict[str, DenseWriter] = {
                split: stack.enter_context(DenseWriter(folder, split, np.int16, (SAMPLES, 1)))
                for split in self.split_names
            }
            for clip, label, split in tqdm(
                deal, desc=self.name, unit=" clips", leave=False, disable=None
            ):
                samples = np.zeros((1, SAMPLES, 1), np.int16)
                samples[0, : len(clip), 0] = clip
                writers[split].append(samples, np.array([label]))
                sizes[split] += 1
        if not all(sizes.values()):
            raise ValueError(f"{place} has too few clips: the splits get {sizes}")
        published = PUBLISHED_SIZES[self.words]
        compares = (
            "The official splits, as in published results."
            if self.words == "35"
            else "Published works cut the same clips into splits of these sizes, by other draws."
        )
        return Description(
            kind="values",
            n_classes=len(self._words),
            targets="class",
            provenance=f"Read from the clips in {place.relative_to(raw_dir).as_posix()}.",
            comparable=(
                compares
                if sizes == published
                else "The folders have not the published clips: numbers do not compare."
            ),
        )

    def _official(self, place: Path) -> Iterator[tuple[Int16[np.ndarray, " n"], int, str]]:
        """All clips, in the splits of the official lists."""
        listed = {
            name: split
            for split, file in LISTS.items()
            for name in (place / file).read_text().split()
        }
        for label, word in enumerate(self._words):
            for path in sorted((place / word).glob("*.wav")):
                yield read_clip(path), label, listed.get(f"{word}/{path.name}", "train")

    def _by_class(self, place: Path) -> Iterator[tuple[Int16[np.ndarray, " n"], int, str]]:
        """The clips of a whole second, each word's dealt by the same shares."""
        rng = np.random.default_rng(self.seed)
        for label, word in enumerate(self._words):
            clips = [read_clip(path) for path in sorted((place / word).glob("*.wav"))]
            whole = [clip for clip in clips if len(clip) == SAMPLES]
            train, most = (round(share * len(whole)) for share in (0.7, 0.85))
            dealt = np.repeat(np.array(self.split_names), [train, most - train, len(whole) - most])
            for clip, split in zip(whole, rng.permutation(dealt).tolist(), strict=True):
                yield clip, label, split


def read_clip(path: Path) -> Int16[np.ndarray, " n"]:
    """The samples of a clip of at most a second.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    try:
        with wave.open(str(path)) as clip:
            form = clip.getnchannels(), clip.getsampwidth(), clip.getframerate()
            expected = clip.getnframes()
            content = clip.readframes(expected)
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} is no whole WAV file ({error})") from error
    if form != (1, 2, SAMPLES) or expected > SAMPLES:
        channels, width, rate = form
        raise ValueError(
            f"{path} has {expected} samples of {channels} channels of {8 * width} bits at {rate} "
            f"Hz, not at most {SAMPLES} of one of 16 bits at {SAMPLES} Hz"
        )
    if len(content) != 2 * expected:
        raise ValueError(f"{path} is truncated: {len(content)} of {2 * expected} bytes")
    return np.frombuffer(content, "<i2").astype(np.int16)
