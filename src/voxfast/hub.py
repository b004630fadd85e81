"""Resolves the name of a model to its folder.

A name is, in this order: an embedded checkpoint (``voxtral-numbers``), a folder, a short
alias (``voxtral-mini-4b``), or a repository on the Hugging Face hub (``owner/name``).
Repositories are downloaded once into the hub's cache, and then used without network access;
``HF_HOME``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` have their usual meaning.
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
    "DEFAULT_MODEL",
    "cached",
    "embedded_models",
    "missing_files",
    "needed_files",
    "repository_of",
    "resolve",
]

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "voxtral-numbers"
CHECKPOINTS = Path(__file__).parent / "checkpoints"

_REPOSITORY = re.compile(r"\w([\w.-]*\w)?/\w([\w.-]{0,94}\w)?", re.ASCII)


def embedded_models() -> dict[str, Path]:
    """Names and folders of the checkpoints in this package."""
    if not CHECKPOINTS.is_dir():
        return {}
    return {path.name: path for path in sorted(CHECKPOINTS.iterdir()) if path.is_dir()}


def resolve(name: str | os.PathLike[str], cache_dir: str | None = None) -> Path:
    """The folder of a model; downloads it from the hub if it is not cached.

    Args:
        name: an embedded name, a folder, an alias, or ``owner/name`` on the hub.
        cache_dir: cache for downloads; None: the hub's own cache.

    Raises:
        ModelNotFoundError: if there is no such model, or it cannot be downloaded. The message
            lists the searched places and similar names.
    """
    if not isinstance(name, str | os.PathLike):
        raise ModelNotFoundError(f"a model is named by a text or a path; got {name!r:.60}")
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
    """The repository of an alias, or the name itself."""
    return ALIASES.get(name.lower(), name)


def cached(repository: str, cache_dir: str | None = None) -> Path | None:
    """The folder of a completely downloaded repository, or None.

    Does not access the network.
    """
    whole = (folder for folder in _snapshots(repository, cache_dir) if not missing_files(folder))
    return next(whole, None)


def needed_files(files: Iterable[str], config: Mapping[str, Any] | None = None) -> list[str]:
    """The files of a repository that are needed to load the model.

    A repository may have the same weights twice: in Mistral's layout
    (``consolidated.safetensors``) and as ``model*.safetensors`` for transformers. Then the former
    are taken. Packed weights are a conversion, and are taken instead of the original.

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
    """Whether this is a valid name of a repository by the hub's rules."""
    odd = "--" in name or ".." in name or name.endswith(".git")
    return not odd and bool(_REPOSITORY.fullmatch(name))


def _snapshots(repository: str, cache_dir: str | None = None) -> Iterator[Path]:
    """The cached snapshots of a repository: first its main branch, then by age.

    Snapshots of other branches and pull requests are left out.
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
    """Download a repository to the hub's cache; resumes an interrupted download."""
    import huggingface_hub
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        snapshot = next(_snapshots(repository, cache_dir), None)
        lacks = f"lacks {', '.join(missing_files(snapshot))} of" if snapshot else "does not hold"
        raise ModelNotFoundError(
            f"the cache {cache_dir or constants.HF_HUB_CACHE} {lacks} {repository}, and the hub "
            f"is switched off by HF_HUB_OFFLINE; unset it to download what is missing"
        )
    # All failures are one kind of error; the chain of HTTP exceptions adds no information.
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
    """An error of the hub in one line, with the remedy."""
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
    """A clause that lists similar names, or an empty text."""
    known = {known.lower(): known for known in (*embedded_models(), *ALIASES, *ALIASES.values())}
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    return f"; similar names: {', '.join(known[match] for match in close)}" if close else ""


def _not_found(name: str, folder: Path) -> NoReturn:
    """Raise the error for an unknown name."""
    embedded = ", ".join(embedded_models()) or "none, the package is incomplete"
    raise ModelNotFoundError(
        f"no model {name!r}{_similar(name)}. Looked for an embedded model in {CHECKPOINTS} "
        f"({embedded}), for the folder {folder.absolute()}, and for an alias "
        f"({', '.join(ALIASES)}); models on the hub are named owner/name"
    )
