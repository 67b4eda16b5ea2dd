"""A run's manifest: its method, the versions it was made with, and what each finished step read and left.

A run folder may come from somebody else: everything in its manifest is checked before any of it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, ValidationError

from recloop.errors import RunError, SettingError
from recloop.files import sha256_of_file

CONFIG, MANIFEST = "config.json", "manifest.json"
# Decide no result, so a run may go on with others.
PASSING = ("lm.pace", "lm.budget", "lm.prices", "lm.gpu", "preflight", "engine", "ray")
CONFIG_DIGEST = "config_sha256"  # of the settings that decide results
MANIFEST_DIGEST = "manifest_sha256"  # of all else in the manifest
MAX_NAME_CHARS = 250  # of a path inside a run folder; file systems take 255
CHARS_SHOWN = 60  # of a file that is no manifest
MAX_BYTES, MAX_DEPTH = 64 * 2**20, 32  # of a JSON file; a manifest of 1,000 steps has 1 MB and a depth of 6
VERSIONED = (
    "torch", "transformers", "trl", "peft", "tokenizers", "sentence-transformers", "polars", "numpy", "scipy",
    "scikit-learn", "implicit", "pydantic", "safetensors", "torch-geometric", "stable-baselines3", "gymnasium"
)  # fmt: skip


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Counts = dict[str, NonNegativeInt]


class FileFacts(BaseModel, strict=True, extra="forbid"):
    """What a file is known by."""

    sha256: Sha256
    bytes: NonNegativeInt


class ServerNote(BaseModel, strict=True, extra="allow", allow_inf_nan=False):
    """What a step's requests to a server came to (`recloop.llm.server.cost.Usage`); more counts may follow."""

    __pydantic_extra__: dict[str, NonNegativeFloat]  # pyright: ignore[reportIncompatibleVariableOverride]
    requests: NonNegativeInt
    retries: NonNegativeInt
    input_tokens: NonNegativeInt
    cached_tokens: NonNegativeInt
    output_tokens: NonNegativeInt
    wasted_tokens: NonNegativeInt
    cost: NonNegativeFloat
    currency: str


class StepEntry(BaseModel, strict=True, extra="allow", allow_inf_nan=False):
    """A finished step. After `peak_memory_bytes` follow facts that only some steps have."""

    folder: str
    inputs: dict[str, Any]
    outputs: dict[str, FileFacts]
    fingerprint: str
    wall_s: NonNegativeFloat
    peak_memory_bytes: NonNegativeInt
    published: dict[str, FileFacts] = {}  # what it left at the top of the run
    reused_from: str = ""
    tokens: NonNegativeInt = 0
    server: ServerNote | None = None
    unusable: Counts = {}
    statuses: Counts = {}
    defects: Counts = {}
    num_lists: Counts = {}
    num_users_with_lists: Counts = {}
    num_lists_without_positive: Counts = {}
    num_requests: Counts = {}
    num_given_up: Counts = {}
    findings: list[Annotated[list[str], Field(min_length=4, max_length=4)]] = []
    num_checked: NonNegativeInt = 0
    num_prompts: NonNegativeInt = 0
    reading: list[str] = []
    columns: dict[str, str] = {}
    perplexity: float = 0.0
    recall: float = 0.0
    knn_recall: float = 0.0
    recall_k: NonNegativeInt = 0
    num_held_out: NonNegativeInt = 0


class Manifest(BaseModel, strict=True, extra="allow"):
    """The manifest of a run."""

    method: str
    versions: dict[str, str]
    resumed_with: list[list[str]]
    steps: dict[str, StepEntry]
    reuses_from: str = ""
    objects: list[str] = []
    config_sha256: Sha256 = 64 * "0"


class Noted(dict[str, Any]):
    """An object of a run's JSON file, to which a missing name is an error of that file."""

    def __missing__(self, key: str) -> Any:
        raise RunError(
            f"a file of the run must hold {key!r}, got only {', '.join(self)}; restore it, or start a new run"
        )


def new_manifest(method: str) -> dict[str, Any]:
    """The manifest of a run that begins."""
    return {
        "method": method,
        "versions": versions(),
        "resumed_with": [],
        "machine": {"system": platform.platform(), "num_cpus": os.cpu_count()},
        "steps": {},
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the run in a folder.

    Raises:
        RunError: it cannot be read, is not JSON, not a run's manifest, was changed, or names files outside the folder.
    """
    path = folder / MANIFEST
    manifest = read_object(path)
    if "stages" in manifest and "steps" not in manifest:
        raise RunError(f"{folder} is a run of recloop 0.1, got its stages; read it there, or start a new run folder")
    require_form(path, manifest, Manifest)
    for name, entry in manifest["steps"].items():
        files = (f"{entry['folder']}/{file}" for file in entry["outputs"])
        for relative in (name, entry["folder"], *files, *entry.get("published", ())):
            require_inside(folder, relative)
    if manifest.get(MANIFEST_DIGEST, told := digest_of_manifest(manifest)) != told:
        raise RunError(f"{path} was changed after the run wrote it; restore it, or start a new run folder")
    return manifest


def require_form(path: Path, value: Mapping[str, Any], form: type[BaseModel]) -> None:
    """RunError, with the first place, where what a file of a run holds is not of a form."""
    try:
        form.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its whole"
        raise RunError(
            f"{path} must be what a run wrote, got {_beginning(value)} with {where} absent or odd ({first['msg']}); "
            f"restore it or start a new run folder"
        ) from error


def digest_of_manifest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest without its own digest: tells a damaged one, not one that somebody made up."""
    told = {name: value for name, value in manifest.items() if name != MANIFEST_DIGEST}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def has_file(folder: Path, name: str) -> bool:
    """Whether a folder has a file; one whose path cannot be has none."""
    try:
        return (folder / name).is_file()
    except OSError:
        return False


def changed_files(folder: Path, entry: Mapping[str, Any]) -> list[str]:
    """Which of the files that a step wrote are gone or other ones, relative to the run folder.

    Raises:
        RunError: one is a link.
    """
    outputs = {f"{entry['folder']}/{name}": facts for name, facts in entry["outputs"].items()}
    return [
        name
        for name, facts in {**outputs, **entry.get("published", {})}.items()
        if not _is(require_inside(folder, name), facts)
    ]


def require_published(folder: Path, manifest: Mapping[str, Any], name: str) -> Path:
    """The path of a file that a step left at the top of its run; RunError where it is gone or another one."""
    for entry in manifest["steps"].values():
        facts = entry.get("published", {}).get(name)
        if facts is not None and not _is(require_inside(folder, name), facts):
            raise RunError(
                f"{folder / name} is not what the run wrote; recloop resume {folder} makes it again from its steps"
            )
    if not (folder / name).is_file():
        raise RunError(f"{folder} has no {name} yet; go on with: recloop resume {folder}")
    return folder / name


def digest_of(config: Mapping[str, Any]) -> str:
    """SHA-256 of the settings that decide results."""
    deciding = json.loads(json.dumps(config))
    for key in PASSING:
        *sections, name = key.split(".")
        part: Any = deciding
        for section in sections:
            part = part.get(section) if isinstance(part, dict) else None  # pyright: ignore[reportUnknownMemberType]
        if isinstance(part, dict):
            part.pop(name, None)  # pyright: ignore[reportUnknownMemberType]
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def require_unedited(path: Path, manifest: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """RunError where the configuration is not the one that the done steps were made with."""
    if manifest["steps"] and manifest.get(CONFIG_DIGEST, digest_of(config)) != digest_of(config):
        raise RunError(
            f"{path / CONFIG} was changed after steps were done, which were made with other settings; put it back, or "
            f"start a new run folder"
        )


def require_inside(folder: Path, relative: str) -> Path:
    """The path of a name that a run folder's manifest gives, when it lies inside the folder and passes no link.

    Raises:
        RunError: the name is absolute, leads out of the folder, is hidden from sight (``..``, ``.``, empty parts, a
            backslash or a control character), or one of its parts is a symbolic link.
    """
    parts = relative.split("/")
    is_plain = len(relative) <= MAX_NAME_CHARS and all(
        part and part not in (".", "..") and part.isprintable() and "\\" not in part for part in parts
    )
    if not is_plain:
        given = relative[:CHARS_SHOWN]
        raise RunError(f"a manifest may name files inside its folder only, got {given!r} in {folder}; do not trust it")
    path = folder
    for part in parts:
        path = path / part
        _require_no_link(path)
    return path


def require_no_links(folder: Path) -> None:
    """RunError where a run folder holds a symbolic link: what is written to it would land somewhere else."""
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            _require_no_link(Path(root, name))


def _require_no_link(path: Path) -> None:
    if path.is_symlink():
        raise RunError(f"a run folder may hold no symbolic links, got {path}; replace it by what it points to")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a run folder.

    Raises:
        RunError: the file cannot be read, is not JSON or holds something else.
    """
    try:
        size = path.stat().st_size
        value = None if size > MAX_BYTES else json.loads(path.read_text(encoding="utf-8"), object_hook=Noted)
        # Neither NaN nor half a character can be written again, and a deep one not be compared.
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        is_bounded = size <= MAX_BYTES and _depth(value) <= MAX_DEPTH
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise RunError(f"{path} is not JSON ({error}); restore it or start a new run folder") from error
    except RecursionError:
        size, value, is_bounded = path.stat().st_size, None, False
    if not is_bounded:
        raise RunError(
            f"{path} may have {MAX_BYTES:,} bytes and {MAX_DEPTH} levels, got {size:,} bytes and "
            f"{'unread' if size > MAX_BYTES else 'more'} levels; restore it or start a new run folder"
        )
    if not isinstance(value, dict):
        raise RunError(f"{path} must hold a JSON object, got {_beginning(value)}; restore it or start a new run folder")
    return cast(dict[str, Any], value)


def versions() -> dict[str, str]:
    """Of Python, recloop and what a result depends on; "absent" for what is not installed."""
    found = {"python": platform.python_version()}
    for package in ("recloop", *VERSIONED):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def differing_keys(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Where two JSON values differ, as ``section.field: old, now new``, in the order of the keys.

    Example:
        >>> differing_keys({"seed": 1, "data": {"users": None}}, {"seed": 1, "data": {"users": 10}})
        ['data.users: null, now 10']
    """
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{prefix}: {json.dumps(old)}, now {json.dumps(new)}"]
    was, now = cast(dict[str, Any], old), cast(dict[str, Any], new)
    found: list[str] = []
    for key in [*was, *(key for key in now if key not in was)]:
        name = f"{prefix}.{key}" if prefix else key
        if key not in now:
            found.append(f"{name}: {json.dumps(was[key])}, now absent")
        elif key not in was:
            found.append(f"{name}: absent, now {json.dumps(now[key])}")
        else:
            found.extend(differing_keys(was[key], now[key], name))
    return found


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any], form: type[BaseModel] | None) -> list[str]:
    """Where two configurations differ in what decides results.

    Args:
        form: of the configurations: a setting that came after the old one has its default there, as for ``resume``.
    """
    if form is not None:
        with suppress(ValidationError, SettingError):
            old = form.model_validate(old).model_dump(mode="json")
    return [line for line in differing_keys(old, new) if not line.startswith(PASSING)]


def _is(path: Path, facts: Mapping[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == facts["bytes"] and sha256_of_file(path) == facts["sha256"]


def _depth(value: Any) -> int:
    """How many levels a JSON value has; no recursion."""
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            part
            for one in level
            if isinstance(one, dict | list)
            for part in (cast(dict[str, Any], one).values() if isinstance(one, dict) else cast(list[Any], one))
        ]
    return depth


def _beginning(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= CHARS_SHOWN else f"{text[:CHARS_SHOWN]}..."
