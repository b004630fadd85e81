"""From the name of a model to the folder that holds it.

A name is, in this order: an embedded checkpoint (``voxtral-numbers``), a folder, a short
alias (``voxtral-mini-4b``), or a repository on the Hugging Face hub (``owner/name``).
Repositories are downloaded once into the hub's own cache, and then used from there without
asking the network again; ``HF_HOME``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` hold as ever.
"""

import difflib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from voxfast.errors import ModelNotFoundError
from voxfast.models.checkpoint import CONSOLIDATED, INDEX
from voxfast.models.files import conversions, peek_json
from voxfast.models.registry import ALIASES, missing_files
from voxfast.models.values import packing

__all__ = [
    "ALIASES",
    "cached",
    "embedded_models",
    "missing_files",
    "needed_files",
    "repository_of",
    "resolve",
]

logger = logging.getLogger(__name__)

CHECKPOINTS = Path(__file__).parent / "checkpoints"

_REPOSITORY = re.compile(r"\w([\w.-]*\w)?/\w([\w.-]{0,94}\w)?", re.ASCII)


def embedded_models() -> dict[str, Path]:
    """The checkpoints that are part of the package: names and folders."""
    if not CHECKPOINTS.is_dir():
        return {}
    return {path.name: path for path in sorted(CHECKPOINTS.iterdir()) if path.is_dir()}


def resolve(name: str | os.PathLike[str], cache_dir: str | None = None) -> Path:
    """The folder of a model; downloads it if it is on the hub and not here yet.

    Args:
        name: an embedded name, a folder, an alias, or ``owner/name`` on the hub.
        cache_dir: folder for what comes from the hub; None: the hub's own cache.

    Raises:
        ModelNotFoundError: if it is none of these, or cannot be downloaded. The message says
            where was looked, and which names are similar.
    """
    text = os.fspath(name)
    embedded = embedded_models()
    if isinstance(name, str) and name in embedded:
        return embedded[name]
    folder = Path(text)
    try:
        folder = folder.expanduser()
        if text and folder.is_dir():
            return folder
        if text and folder.exists():
            raise ModelNotFoundError(f"{text} is a file; give the folder that holds the model")
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelNotFoundError(f"{text!r} cannot be the name of a model: {error}") from None
    repository = repository_of(text)
    if not isinstance(name, str) or not _is_repository(repository):
        _not_found(text, folder)
    return cached(repository, cache_dir) or _download(repository, cache_dir)


def repository_of(name: str) -> str:
    """The repository on the hub that an alias stands for, or the name itself."""
    return ALIASES.get(name.lower(), name)


def cached(repository: str, cache_dir: str | None = None) -> Path | None:
    """The folder of a repository that was downloaded before, whole; None if it was not.

    Looks at the disk only.
    """
    whole = (folder for folder in _snapshots(repository, cache_dir) if not missing_files(folder))
    return next(whole, None)


def needed_files(files: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]:
    """Those files of a repository that a model is loaded from.

    A repository may hold the same weights twice: in Mistral's layout
    (``consolidated.safetensors``) and for transformers as ``model*.safetensors``; then the
    former are taken. Or a conversion lies beside what it was made of: packed weights are
    taken alone.

    Args:
        files: all files of the repository.
        config: its ``config.json``, if it has one.
    """
    top = [file for file in files if "/" not in file]
    wanted = [file for file in top if file.endswith(".json") or file == "merges.txt"]
    weights = [file for file in top if file.endswith(".safetensors")]
    if CONSOLIDATED in weights:
        if not (packing(config or {}) and conversions(weights)):
            return sorted([*(file for file in wanted if file != INDEX), CONSOLIDATED])
        weights.remove(CONSOLIDATED)
    return sorted([*wanted, *weights])


def _is_repository(name: str) -> bool:
    """Whether a repository on the hub can have this name; the hub's own rules."""
    odd = "--" in name or ".." in name or name.endswith(".git")
    return not odd and bool(_REPOSITORY.fullmatch(name))


def _snapshots(repository: str, cache_dir: str | None = None) -> Iterator[Path]:
    """What the hub's cache has of a repository: first its main branch, then the newest.

    Snapshots that only another branch or a pull request names were asked for as such.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE if cache_dir is None else cache_dir)
    home = cache.expanduser() / repo_folder_name(repo_id=repository, repo_type="model")
    refs = {path: _ref(path) for path in (home / "refs").rglob("*") if path.is_file()}
    main = refs.pop(home / "refs" / "main", "")
    found = [path for path in (home / "snapshots").glob("*") if path.is_dir()]
    found.sort(key=lambda path: (path.name == main, path.stat().st_mtime), reverse=True)
    yield from (path for path in found if path.name == main or path.name not in refs.values())


def _ref(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _download(repository: str, cache_dir: str | None = None) -> Path:
    """Fetch a repository's model into the hub's cache; an interrupted download goes on."""
    import huggingface_hub
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        snapshot = next(_snapshots(repository, cache_dir), None)
        lacks = f"lacks {', '.join(missing_files(snapshot))} of" if snapshot else "does not hold"
        raise ModelNotFoundError(
            f"the cache {cache_dir or constants.HF_HUB_CACHE} {lacks} {repository}, and the hub "
            f"is switched off by HF_HUB_OFFLINE; unset it to download what is missing"
        )
    # Whatever goes wrong on the way is one kind of error to the caller, and the chain of
    # HTTP exceptions under it says nothing more.
    try:
        listed = huggingface_hub.HfApi().list_repo_files(repository)
        config: dict[str, Any] = {}
        if CONSOLIDATED in listed and conversions(listed) and "config.json" in listed:
            config = peek_json(
                Path(
                    huggingface_hub.hf_hub_download(repository, "config.json", cache_dir=cache_dir)
                )
            )
        files = needed_files(listed, config)
    except Exception as error:
        raise ModelNotFoundError(_hub_message(repository, error)) from None
    if not any(file.endswith(".safetensors") for file in files):
        raise ModelNotFoundError(
            f"the repository {repository} on the hub holds no model (no *.safetensors)"
        )
    logger.info("downloading %s from the Hugging Face hub", repository)
    try:
        return Path(
            huggingface_hub.snapshot_download(repository, cache_dir=cache_dir, allow_patterns=files)
        )
    except Exception as error:
        raise ModelNotFoundError(_hub_message(repository, error)) from None


def _hub_message(repository: str, error: Exception) -> str:
    """What went wrong on the hub, in one line, and what to do."""
    from huggingface_hub import errors

    logger.debug("the Hugging Face hub failed on %s", repository, exc_info=error)
    if isinstance(error, errors.GatedRepoError):
        return (
            f"the model {repository} asks for its terms to be accepted: do so on "
            f"https://huggingface.co/{repository}, then run: hf auth login"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no model {repository} on the hub, or it is private{_similar(repository)}"
    reason = next(iter(str(error).strip().splitlines()), "") or "no reason given"
    return (
        f"{repository} could not be downloaded from the hub ({type(error).__name__}: {reason}); "
        f"what has arrived is kept, so try again when the network is back"
    )


def _similar(name: str) -> str:
    """A sentence about known names that look like this one, or nothing."""
    known = {known.lower(): known for known in (*embedded_models(), *ALIASES, *ALIASES.values())}
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    return f"; similar names: {', '.join(known[match] for match in close)}" if close else ""


def _not_found(name: str, folder: Path) -> NoReturn:
    """Raise the error about a name that is nothing we know."""
    embedded = ", ".join(embedded_models()) or "none, the package is incomplete"
    raise ModelNotFoundError(
        f"no model {name!r}{_similar(name)}. Looked for an embedded model in {CHECKPOINTS} "
        f"({embedded}), for the folder {folder.absolute()}, and for an alias "
        f"({', '.join(ALIASES)}); models on the hub are named owner/name"
    )
