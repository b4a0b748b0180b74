import io
import wave
from pathlib import Path

import numpy as np
import pytest

from lru.dataloaders import dataset_from_options
from lru.dataloaders.files.fetch import MIRROR_VARIABLE, DownloadError
from lru.dataloaders.sets.speech_commands import (
    LISTS,
    OTHER_WORDS,
    PLACES,
    SAMPLES,
    TEN_WORDS,
    SpeechCommands,
    read_clip,
)

WORDS = TEN_WORDS + OTHER_WORDS


def sound(samples: np.ndarray, channels: int = 1, rate: int = SAMPLES) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as clip:
        clip.setnchannels(channels)
        clip.setsampwidth(2)
        clip.setframerate(rate)
        clip.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


def contents(clips: int = 3) -> dict[str, bytes]:
    """Clips of constant loudness 100 · word + clip; the last is short."""
    files = {"_background_noise_/hum.wav": b"", "LICENSE": b""}
    for number, word in enumerate(WORDS):
        for clip in range(clips):
            length = 12 if clip == clips - 1 else SAMPLES
            files[f"{word}/{clip}.wav"] = sound(np.full(length, 100 * number + clip))
    files[LISTS["val"]] = "\n".join(f"{word}/0.wav" for word in WORDS).encode()
    files[LISTS["test"]] = "\n".join(f"{word}/2.wav" for word in WORDS[:4]).encode()
    return files


def write(raw_dir: Path, place: str = PLACES[0], clips: int = 3) -> Path:
    for name, content in contents(clips).items():
        path = raw_dir / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return raw_dir / place


@pytest.mark.parametrize("place", PLACES)
def test_the_official_lists_make_the_splits(raw_dir, cache_dir, place):
    write(raw_dir, place)
    prepared = SpeechCommands().load(raw_dir, cache_dir)
    assert [len(split) for split in (prepared.train, prepared.val, prepared.test)] == [66, 35, 4]
    assert prepared.test.inputs.dtype == np.int16
    assert prepared.test.inputs[:, 0, 0].tolist() == [2, 102, 202, 302]
    assert (prepared.test.inputs[:, 12:] == 0).all()
    assert prepared.val.labels.tolist() == list(range(35))
    assert (prepared.val.inputs == 100 * np.arange(35)[:, None, None]).all()
    assert prepared.card.mean[0] == pytest.approx(prepared.train.inputs.mean())
    assert "have not the published clips" in prepared.card.comparable


def test_ten_words_of_whole_seconds_are_dealt_by_class(raw_dir, cache_dir):
    write(raw_dir, clips=21)
    prepared = SpeechCommands(words="10").load(raw_dir, cache_dir)
    assert [len(split) for split in (prepared.train, prepared.val, prepared.test)] == [140, 30, 30]
    assert prepared.card.splits["test"]["class_counts"] == [3] * 10
    loudness = [split.inputs[:, 0, 0] for split in (prepared.train, prepared.val, prepared.test)]
    assert sorted(np.concatenate(loudness)) == [100 * w + c for w in range(10) for c in range(20)]
    other = SpeechCommands(words="10", seed=1).load(raw_dir, cache_dir)
    assert (other.test.inputs != prepared.test.inputs).any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no whole WAV file"),
        (b"RIFF....", "is no whole WAV file"),
        (sound(np.zeros(100))[:-10], "is truncated: 190 of 200 bytes"),
        (sound(np.zeros(100), channels=2), "50 samples of 2 channels of 16 bits at 16000 Hz"),
        (sound(np.zeros(100), rate=8_000), "at 8000 Hz, not at most 16000"),
        (sound(np.zeros(16_001)), "has 16001 samples"),
    ],
)
def test_a_damaged_clip_is_named(tmp_path, content, message):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.wav .*{message}|a\.wav {message}"):
        read_clip(path)


def test_too_few_clips_are_an_error_and_nothing_is_cached(raw_dir, cache_dir):
    (write(raw_dir) / LISTS["test"]).write_text("")
    with pytest.raises(ValueError, match="has too few clips"):
        SpeechCommands().prepare(raw_dir, cache_dir)
    assert list(cache_dir.iterdir()) == []


def test_a_missing_archive_is_asked_for_by_name(raw_dir, cache_dir, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"put it at .*speech_commands_v0\.02\.tar\.gz"):
        SpeechCommands().prepare(raw_dir, cache_dir)
    assert dataset_from_options("speech35-classification") == SpeechCommands()
