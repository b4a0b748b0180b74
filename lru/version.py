"""Version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("lru-jax")
except PackageNotFoundError:
    # A checkout that is used without being installed.
    __version__ = "unknown"
