"""A run's manifest: its method, the versions it was made with, and what each finished step read and left."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from recloop.errors import RunError

CONFIG, MANIFEST = "config.json", "manifest.json"
PASSING = ("lm.pace", "lm.budget", "lm.prices", "preflight")  # decide no result, so a run may go on with others
CONFIG_DIGEST = "config_sha256"  # of the settings that decide results
PARTS = {"method": str, "versions": dict, "resumed_with": list, "steps": dict}
PARTS_OF_STEP = {"folder": str, "inputs": dict, "outputs": dict, "fingerprint": str, "wall_s": int | float}
CHARS_SHOWN = 60  # of a file that is no manifest
VERSIONED = (
    "torch", "transformers", "trl", "peft", "tokenizers", "sentence-transformers", "polars", "numpy", "scipy",
    "scikit-learn", "implicit", "pydantic", "safetensors", "torch-geometric", "stable-baselines3", "gymnasium"
)  # fmt: skip


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
        RunError: it cannot be read, is not JSON or not a run's manifest.
    """
    manifest = read_object(folder / MANIFEST)
    if "stages" in manifest and "steps" not in manifest:
        raise RunError(f"{folder} is a run of recloop 0.1, got its stages; read it there, or start a new run folder")
    steps: Mapping[str, Any] = manifest.get("steps", {})
    if not _has(manifest, PARTS) or not all(_has(entry, PARTS_OF_STEP) for entry in steps.values()):
        raise RunError(
            f"{folder / MANIFEST} must hold a run's {', '.join(PARTS)}, and of each step "
            f"{', '.join(PARTS_OF_STEP)}, got {_beginning(manifest)}; restore it or start a new run folder"
        )
    for name, entry in steps.items():
        for relative in (name, entry["folder"], *(f"{entry['folder']}/{file}" for file in entry["outputs"])):
            require_inside(folder, relative)
    return manifest


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
    is_plain = all(part and part not in (".", "..") and part.isprintable() and "\\" not in part for part in parts)
    if not is_plain:
        raise RunError(
            f"a manifest may name files inside its folder only, got {relative!r} in {folder}; do not trust it"
        )
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise RunError(f"a run folder may hold no symbolic links, got {path}; replace it by what it points to")
    return path


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a run folder.

    Raises:
        RunError: the file cannot be read, is not JSON or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise RunError(f"{path} is not JSON ({error}); restore it or start a new run folder") from error
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


def _has(value: Any, parts: Mapping[str, Any]) -> bool:
    if not isinstance(value, dict):
        return False
    given = cast(dict[str, Any], value)
    return all(isinstance(given.get(name), kind) for name, kind in parts.items())


def _beginning(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= CHARS_SHOWN else f"{text[:CHARS_SHOWN]}..."
