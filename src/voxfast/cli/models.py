"""``voxfast models``: which models there are, what is on the disk, and how to be rid of it."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from voxfast import hub
from voxfast.cli import options
from voxfast.cli.console import UsageError, note, say
from voxfast.errors import ModelNotFoundError, VoxfastError
from voxfast.models.registry import family_of

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "models",
        help="list models, and remove downloaded ones",
        description="List embedded models, aliases of models on the Hugging Face hub, and what "
        "is in the hub's cache; or remove models from the cache.",
        epilog="example: voxfast models --remove voxtral-mini-4b-4bit",
    )
    parser.add_argument(
        "--remove",
        nargs="+",
        metavar="NAME",
        help="remove these from the hub's cache (alias, or owner/name): all that is there of the "
        "repository, for other programs as well. Asks on a terminal",
    )
    parser.add_argument("--yes", "-y", action="store_true", help="remove without asking")
    options.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List models, or remove some; returns the exit code."""
    if args.remove is None:
        _list(args.quiet)
        return 0
    repositories = list(dict.fromkeys(_repository(name) for name in args.remove))
    found = [_find(repository) for repository in repositories]  # all, before any is removed
    ask = not args.yes and sys.stdin.isatty() and sys.stderr.isatty()
    for repo in found:
        if ask and not _agreed(repo):
            say(f"{repo.repo_id}: kept\n")
        else:
            say(f"{repo.repo_id}: removed, {_size(_remove(repo))} freed\n")
    return 0


def _list(quiet: bool) -> None:
    repos, warnings = _scan()
    rows = [("NAME", "SIZE", "", "REPOSITORY")]
    for name, place in hub.embedded_models().items():
        n_bytes = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        rows.append((name, _size(n_bytes), "embedded", ""))
    for name, repository in hub.ALIASES.items():
        rows.append((name, *_state(repos.get(repository)), repository))
    for repository in sorted(repos.keys() - set(hub.ALIASES.values())):
        if (folder := hub.cached(repository)) and family_of(folder):
            rows.append((repository, *_state(repos[repository]), repository))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for name, size, state, repository in rows:
        line = f"{name:{widths[0]}}  {size:>{widths[1]}}  {state:{widths[2]}}  {repository}"
        say(line.rstrip() + "\n")
    if not quiet:
        from huggingface_hub import constants

        note(f"voxfast: models of the hub are kept in {constants.HF_HUB_CACHE}")
        for warning in warnings:
            note(f"voxfast: {warning}")


def _state(repo: "CachedRepoInfo | None") -> tuple[str, str]:
    """Size on the disk, and whether a model can be loaded without the network."""
    if repo is None:
        return "-", "not downloaded"
    size = sum(blob.stat().st_size for blob in _blobs(repo))
    return _size(size), "cached" if hub.cached(repo.repo_id) else "incomplete"


def _repository(name: str) -> str:
    """The repository that a name stands for; refuses what does not come from the hub."""
    if name in hub.embedded_models():
        raise UsageError(f"{name} is part of voxfast; only downloaded models can be removed")
    repository = hub.repository_of(name)
    if repository == name and Path(name).expanduser().is_dir():
        raise UsageError(f"{name} is a folder; only what is in the hub's cache is removed here")
    return repository


def _scan() -> tuple[dict[str, "CachedRepoInfo"], list[str]]:
    """The models in the hub's cache, and what cannot be made sense of there."""
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    try:
        cache = scan_cache_dir(constants.HF_HUB_CACHE)
    except CacheNotFound:  # nothing was downloaded yet
        return {}, []
    repos = {repo.repo_id: repo for repo in cache.repos if repo.repo_type == "model"}
    return repos, [str(warning) for warning in cache.warnings]


def _find(repository: str) -> "CachedRepoInfo":
    from huggingface_hub import constants

    repos, warnings = _scan()
    if repository in repos:
        return repos[repository]
    for warning in warnings:
        note(f"voxfast: {warning}")
    raise ModelNotFoundError(
        f"{repository} is not in the cache {constants.HF_HUB_CACHE}; voxfast models lists what is"
    )


def _blobs(repo: "CachedRepoInfo") -> Iterator[Path]:
    """The files of a repository, each once, and what interrupted downloads left of others."""
    yield from {file.blob_path for revision in repo.revisions for file in revision.files}
    yield from (repo.repo_path / "blobs").glob("*.incomplete")


def _agreed(repo: "CachedRepoInfo") -> bool:
    size = _state(repo)[0]
    note(f"remove {repo.repo_path} ({size})? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _remove(repo: "CachedRepoInfo") -> int:
    """Remove a repository from the cache; returns the bytes that are gone.

    Raises:
        VoxfastError: if something is still there.
    """
    from huggingface_hub import constants, scan_cache_dir

    before = {blob.resolve(): blob.stat().st_size for blob in _blobs(repo)}
    revisions = [revision.commit_hash for revision in repo.revisions]
    # Of this repository alone: one that was renamed has the same revisions under both names.
    cache = replace(scan_cache_dir(constants.HF_HUB_CACHE), repos=frozenset({repo}))
    cache.delete_revisions(*revisions).execute()
    left = [blob for blob in before if blob.exists()]
    if left or repo.repo_path.exists():
        raise VoxfastError(
            f"{left[0] if left else repo.repo_path} could not be removed; "
            f"{_size(sum(before[blob] for blob in before if blob not in left))} were freed"
        )
    return sum(before.values())


def _size(n_bytes: int) -> str:
    unit = next(unit for unit in (1e3, 1e6, 1e9) if n_bytes < 1000 * unit or unit == 1e9)
    return f"{n_bytes / unit:.1f} {({1e3: 'kB', 1e6: 'MB', 1e9: 'GB'})[unit]}"
