"""From the name of a model to the folder that holds it.

A name is, in this order: an embedded checkpoint (``voxtral-numbers``), a folder, a short
alias (``voxtral-mini-4b``), or a repository on the Hugging Face hub (``owner/name``).
Repositories are downloaded once into the hub's own cache, and then used from there without
asking the network again; ``HF_HOME``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` hold as ever.
"""

import difflib
import json
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from voxfast.errors import ModelNotFoundError

__all__ = ["ALIASES", "cached", "embedded_models", "needed_files", "resolve"]

logger = logging.getLogger(__name__)

CHECKPOINTS = Path(__file__).parent / "checkpoints"

ALIASES = {
    "voxtral-mini-4b": "mistralai/Voxtral-Mini-4B-Realtime-2602",
    "voxtral-mini-4b-fp16": "mlx-community/Voxtral-Mini-4B-Realtime-2602-fp16",
    "voxtral-mini-4b-6bit": "mlx-community/Voxtral-Mini-4B-Realtime-6bit",
    "voxtral-mini-4b-4bit": "mlx-community/Voxtral-Mini-4B-Realtime-2602-4bit",
    "qwen3-asr-0.6b": "Qwen/Qwen3-ASR-0.6B",
    "qwen3-asr-0.6b-8bit": "mlx-community/Qwen3-ASR-0.6B-8bit",
    "qwen3-asr-0.6b-4bit": "mlx-community/Qwen3-ASR-0.6B-4bit",
    "qwen3-asr-1.7b": "Qwen/Qwen3-ASR-1.7B",
    "qwen3-asr-1.7b-8bit": "mlx-community/Qwen3-ASR-1.7B-8bit",
    "qwen3-asr-1.7b-4bit": "mlx-community/Qwen3-ASR-1.7B-4bit",
}

_REPOSITORY = re.compile(r"\w([\w.-]*\w)?/\w([\w.-]{0,94}\w)?", re.ASCII)
_SHARD = re.compile(r".*-(\d{5})-of-(\d{5})\.safetensors")
_CONSOLIDATED = "consolidated.safetensors"
_INDEX = "model.safetensors.index.json"


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
    repository = ALIASES.get(text.lower(), text)
    if not isinstance(name, str) or not _is_repository(repository):
        _not_found(text, folder)
    return cached(repository, cache_dir) or _download(repository, cache_dir)


def cached(repository: str, cache_dir: str | None = None) -> Path | None:
    """The folder of a repository that was downloaded before, whole; None if it was not.

    Looks at the disk only.
    """
    from huggingface_hub import try_to_load_from_cache

    for name in ("params.json", "config.json"):
        path = try_to_load_from_cache(repository, name, cache_dir=cache_dir)
        if isinstance(path, str) and _is_whole(Path(path).parent):
            return Path(path).parent
    return None


def needed_files(files: Iterable[str]) -> list[str]:
    """Those files of a repository that a model is loaded from.

    A repository may hold the same weights twice, in Mistral's layout
    (``consolidated.safetensors``) and as ``model*.safetensors``; only the former are taken.
    """
    top = [file for file in files if "/" not in file]
    wanted = [file for file in top if file.endswith(".json") or file == "merges.txt"]
    if _CONSOLIDATED in top:
        return sorted([*(file for file in wanted if file != _INDEX), _CONSOLIDATED])
    return sorted([*wanted, *(file for file in top if file.endswith(".safetensors"))])


def _is_repository(name: str) -> bool:
    """Whether a repository on the hub can have this name; the hub's own rules."""
    odd = "--" in name or ".." in name or name.endswith(".git")
    return not odd and bool(_REPOSITORY.fullmatch(name))


def _is_whole(folder: Path) -> bool:
    """Whether a snapshot has its configuration, a tokenizer and all of its weights.

    The hub's cache links a file into a snapshot when it is complete, not before.
    """
    names = {path.name for path in folder.iterdir() if path.exists()}
    has_tokenizer = bool(names & {"tekken.json", "tokenizer.json"}) or names >= {
        "vocab.json",
        "merges.txt",
    }
    if not has_tokenizer:
        return False
    if _CONSOLIDATED in names:
        return "params.json" in names
    weights = {name for name in names if name.endswith(".safetensors")}
    if _INDEX in names:
        try:
            shards = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"]
            return names >= set(shards.values())
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return False
    counts = {int(match[2]) for name in weights if (match := _SHARD.fullmatch(name))}
    return bool(weights) and all(count == len(weights) for count in counts)


def _download(repository: str, cache_dir: str | None = None) -> Path:
    """Fetch a repository's model into the hub's cache; an interrupted download goes on."""
    import huggingface_hub
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise ModelNotFoundError(
            f"{repository} is not (wholly) in the cache {constants.HF_HUB_CACHE}, and the hub is "
            f"switched off by HF_HUB_OFFLINE; unset it to download the model"
        )
    # Whatever goes wrong on the way is one kind of error to the caller, and the chain of
    # HTTP exceptions under it says nothing more.
    try:
        files = needed_files(huggingface_hub.HfApi().list_repo_files(repository))
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
