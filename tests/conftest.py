"""Settings of all tests; set before JAX and NumPy are imported."""

import gc
import gzip
import itertools
import os
import pickle
import wave
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What splits over devices needs several; everything else stays on the first.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
# Threads of BLAS and of XLA would fight for the same cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Compiling is most of the time, and what is proved needs no optimised code; one test of the law of
# scans asks for it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# The older of two ways in which XLA makes code for CPUs compiles in half the time, and without
# threads of its own. Later releases have one way alone, and refuse its flag.
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ.setdefault("XLA_FLAGS", flags)

# Many tests run the same small programs: each is compiled once for all of them.
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "compiled"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402

VARIABLE = "LRU_TEST_DATA"


def pytest_addoption(parser):
    parser.addoption(
        "--plugins",
        # `plugins` are those of pytest.
        dest="lru_plugins",
        metavar="FILES",
        help="plugins whose layers the law of layers is to hold for",
    )


def pytest_sessionstart(session):
    """Load plugins before tests are collected, which read the registries."""
    plugins = session.config.option.lru_plugins
    if plugins:
        # Here, as the types of what is imported before the session are not checked.
        from lru.plugins import load_plugins

        load_plugins(plugins)


def pytest_collection_finish():
    """Collect garbage rarely, and not among what stays to the end: tracing allocates a lot."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture
def _traced_anew():
    """What a test puts in the place of a function counts, in this test alone."""
    import jax

    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture
def compilations():
    """Names of the events of JAX, from now on, in which it traces or compiles."""
    import jax

    events = []

    def listen(name, *_, **__):
        if "compile" in name:
            events.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def real_data():
    """The folder with the unpacked data sets; the test is skipped where there is none."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"real data needed: set {VARIABLE} to a folder laid out like raw_datasets/")
    return Path(folder)


@pytest.fixture(scope="session")
def few_files(tmp_path_factory):
    """A raw folder with a few examples of every data set that is read from files."""
    # Here, as the types of what is imported before the tests are collected are not checked.
    from lru.dataloaders.sets.speech_commands import OTHER_WORDS, SAMPLES, TEN_WORDS

    rng = np.random.default_rng(0)
    raw_dir = tmp_path_factory.mktemp("raw_datasets")

    def write(path, content):
        (raw_dir / path).parent.mkdir(parents=True, exist_ok=True)
        (raw_dir / path).write_bytes(content)

    def idx(array):
        header = np.array([0x800 + array.ndim, *array.shape], ">i4")
        return header.tobytes() + array.tobytes()

    for place in ("MNIST", "FashionMNIST"):
        for part, n in (("train", 60), ("t10k", 8)):
            images = rng.integers(256, size=(n, 28, 28), dtype=np.uint8)
            write(f"{place}/raw/{part}-images-idx3-ubyte", idx(images))
            write(f"{place}/raw/{part}-labels-idx1-ubyte", idx(np.arange(n, dtype=np.uint8) % 10))
    for method, digit in itertools.product(("tsne", "umap"), range(10)):
        for part in ("train", "validate", "test"):
            path = f"mnist_quantum/mnist-{method}-2-{digit}-{part}.csv.gz"
            write(path, gzip.compress(f"{digit},200\n".encode()))
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        pixels = rng.integers(256, size=(4, 3072), dtype=np.uint8)
        batch = {b"data": pixels, b"labels": [0, 1, 2, 9]}
        write(f"cifar-10-batches-py/{name}", pickle.dumps(batch))
    for part in ("TRAIN", "TEST"):
        rows = "".join(f"1,{i},2:0,1,{i}:{'ab'[i % 2]}\n" for i in range(24))
        write(f"series/series_{part}.ts", f"@classLabel true a b\n@data\n{rows}".encode())
    for part in ("train", "test"):
        for i in range(8):
            write(f"aclImdb/{part}/neg/{i}_2.txt", b"bad " * (i + 1))
            write(f"aclImdb/{part}/pos/{i}_9.txt", b"good " * (i + 1))
    for part in ("train", "eval", "test"):
        rows = [f"{i % 2}.0\ta{i}\tb{i}\t{'ab ' * (i + 1)}\t{'ba' * 9}" for i in range(8)]
        write(f"tsv_data/new_aan_pairs.{part}.tsv", "\n".join([*rows, ""]).encode())
    for part in ("train", "valid", "test"):
        words = "the cat sat\non the mat\n" * 40
        write(f"simple-examples/data/ptb.{part}.txt", words.encode())
        write(f"simple-examples/data/ptb.char.{part}.txt", " ".join(words).encode())
        for corpus in ("wikitext-2", "wikitext-103"):
            write(f"{corpus}/wiki.{part}.tokens", words.encode())
    for name in ("enwik8/enwik8", "text8/text8", "tinyshakespeare/input.txt"):
        write(name, b"to be or not to be\n" * 40)
    speech = "speech_commands_v0.02"
    for word in (*TEN_WORDS, *OTHER_WORDS):
        for clip in ("a", "b", "c") if word in ("yes", "no") else ("a",):
            path = raw_dir / speech / word / f"{clip}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(path), "wb") as sound:
                sound.setparams((1, 2, SAMPLES, 0, "NONE", None))
                sound.writeframes(rng.integers(-99, 99, 50).astype("<i2").tobytes())
    write(f"{speech}/validation_list.txt", b"yes/b.wav\nno/b.wav")
    write(f"{speech}/testing_list.txt", b"yes/c.wav\nno/c.wav")
    return raw_dir
