"""Objects of stores (S3, Google Cloud Storage, web servers) by their address, through fsspec."""

import re
from typing import Any, Self
from urllib.parse import urlsplit

from voxfast.errors import AudioFileError

# fsspec opens much more by an address: archives, caches, other addresses behind "::".
_SCHEMES = ("s3", "gs", "http", "https", "file")
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_address(name: str) -> bool:
    """Whether a text is an address (``s3://bucket/talk.flac``), no path."""
    return _ADDRESS.match(name) is not None


def without_secrets(address: str) -> str:
    """An address without user, password and query, for messages and files."""
    try:
        parts = urlsplit(address)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        scheme, _, rest = address.partition("?")[0].partition("://")
        host, slash, path = rest.partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    path = parts.path if parts.scheme in ("http", "https") else address_path(address)
    return f"{parts.scheme}://{host}{path}"


def address_path(address: str) -> str:
    """What follows the host; in stores of objects, "?" and "#" are letters like any other."""
    rest = address.partition("://")[2]
    return rest[rest.find("/") :] if "/" in rest else ""


def check_address(address: str) -> None:
    """Raise unless it can be opened here.

    Raises:
        AudioFileError: for an address of a kind that is not read.
        ImportError: if the package of its store is missing.
    """
    found = _ADDRESS.match(address)
    scheme = found[1].lower() if found else ""
    if scheme not in _SCHEMES or "::" in address:
        raise AudioFileError(
            f"{without_secrets(address)} is no address that is read: one begins with "
            f"{', '.join(f'{known}://' for known in _SCHEMES)}, and has no '::'"
        )
    _file_system(scheme)


def listed(address: str) -> list[str]:
    """The addresses below a folder (one that ends with "/"), or of a pattern with ``*``, sorted.

    Raises:
        AudioFileError, ImportError: as :func:`check_address`.
        OSError: if the store does not answer.
    """
    check_address(address)
    from fsspec.core import url_to_fs

    store, path = url_to_fs(address)
    try:
        found = store.glob(path) if "*" in path else store.find(path)
    except Exception as error:  # stores raise what they like
        raise OSError(f"{without_secrets(address)} cannot be listed: {_reason(error)}") from error
    return sorted(str(store.unstrip_protocol(name)) for name in found)


class RemoteFile:
    """An object of a store, open for reading; what its store raises becomes an AudioFileError.

    Raises:
        AudioFileError: from the constructor and from :meth:`read`.
        ImportError: if the package of its store is missing.
    """

    def __init__(self, address: str) -> None:
        check_address(address)
        import fsspec

        self._name = without_secrets(address)
        try:
            self._file: Any = fsspec.open(address, "rb").open()
        except FileNotFoundError:
            raise AudioFileError(f"{self._name} does not exist") from None
        except Exception as error:
            raise AudioFileError(f"{self._name} cannot be opened: {_reason(error)}") from error

    def read(self, most: int) -> bytes:
        """1 to ``most`` bytes; nothing at the end."""
        try:
            return bytes(self._file.read(most))
        except Exception as error:
            raise AudioFileError(f"{self._name} cannot be read: {_reason(error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _file_system(scheme: str) -> None:
    """Raise ImportError, with the remedy, unless fsspec can read such addresses."""
    package = _PACKAGES.get(scheme)
    try:
        import fsspec

        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        packages = " ".join(["fsspec", *([package] if package else [])])
        raise ImportError(
            f"reading {scheme}:// needs {packages}: pip install {packages} ({error})"
        ) from error


def _reason(error: Exception) -> str:
    """An exception in words; the address in it may hold a secret."""
    return f"{type(error).__name__}: {re.sub(r'[?][^ ]*', '?…', str(error))}"
