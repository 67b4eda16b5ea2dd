"""``python -m fuzz``: cases by kind, bounded by time or number; exit code 1 where one failed."""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from fuzz import manifests, models, readers, servers, settings
from fuzz.target import Case, Kind
from fuzz.watch import MAX_BYTES, Hang, Watcher, forget_peak, peak_bytes
from recloop.errors import RecloopError

MAX_HELD = 6 << 30  # what a case asks for beyond it is a MemoryError, and spares the machine

KINDS = {kind.name: kind for kind in (readers.KIND, settings.KIND, manifests.KIND, servers.KIND, models.KIND)}


def main() -> int:
    """Fuzz as the command line says; 1 where a case failed."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=2.0, help="for all kinds together")
    parser.add_argument("--inputs", type=int, help="this many cases of each kind, however long it takes")
    parser.add_argument("--full", action="store_true", help="the full count of each kind, however long it takes")
    parser.add_argument("--only", choices=sorted(KINDS), action="append")
    parser.add_argument("--case", type=int, help="this case alone")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="the folder for inputs that failed")
    options = parser.parse_args()
    keep = options.keep.absolute()
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_HELD, MAX_HELD))
    memory = Path("/dev/shm")  # thousands of folders are made and removed
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if memory.is_dir() else None) as folder:
        work = Path(folder).resolve()
        chosen = [KINDS[name] for name in options.only or KINDS]
        watcher = Watcher(work)
        failed = 0
        for kind in chosen:
            number = options.inputs or (kind.number if options.full else None)
            share_s = 60 * options.minutes / len(chosen)
            ends = time.monotonic() + share_s if number is None else None
            numbers = range(number or sys.maxsize) if options.case is None else range(options.case, options.case + 1)
            # Each kind is made in its turn: the libraries that a later one loads are no memory of this one's.
            failed += _fuzz(kind, kind.make(work), watcher, options.seed, numbers, ends, keep)
        os.chdir("/")
    return int(failed > 0)


def _fuzz(kind: Kind, case: Case, watcher: Watcher, seed: int, numbers: range, ends: float | None, keep: Path) -> int:
    """Do cases of one kind; how many failed."""
    counts = {"worked": 0, "refused": 0, "failed": 0}
    slowest, began = 0.0, time.monotonic()
    highest = 0
    for number in numbers:
        if ends is not None and time.monotonic() > ends:
            break
        forget = number % 50 == 0
        if forget:
            forget_peak()
        outcome, told, taken_s = _one(
            case, watcher, random.Random(f"{seed} {kind.name} {number}"), case_is_foreign=kind is models.KIND
        )
        slowest = max(slowest, taken_s)
        highest = max(highest, peak_bytes())
        if outcome != "failed" and peak_bytes() > MAX_BYTES:
            outcome, told = "failed", f"{peak_bytes() / 1e9:.2f} GB held"
            forget_peak()
        counts[outcome] += 1
        if outcome == "failed":
            print(f"\nFAILED: python -m fuzz --only {kind.name} --seed {seed} --case {number}\n{told}", flush=True)
            forget_peak()
            target = keep / f"{kind.name}-{seed}-{number}"
            shutil.rmtree(target, ignore_errors=True)
            if watcher.folder.is_dir():
                shutil.copytree(watcher.folder, target, symlinks=True)
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    print(
        f"{kind.name}: {sum(counts.values()):,} inputs, {told}; slowest {slowest:.1f} s, highest "
        f"{highest / 1e6:.0f} MB, {time.monotonic() - began:.0f} s",
        flush=True,
    )
    return counts["failed"]


def _one(case: Case, watcher: Watcher, rng: random.Random, *, case_is_foreign: bool) -> tuple[str, str, float]:
    """What became of one case, what is wrong with it, and the seconds that it took."""
    shutil.rmtree(watcher.folder, ignore_errors=True)
    watcher.folder.mkdir()
    tempfile.tempdir = str(watcher.folder)
    hand_over = case(rng, watcher.folder)
    outcome, told, start = "worked", "", time.monotonic()
    try:
        with watcher.watching(), warnings.catch_warnings():
            # Model folders are read by others' code, which warns of what it likes.
            warnings.simplefilter("ignore" if case_is_foreign else "error")
            hand_over()
    except RecloopError as error:
        outcome, told = ("refused", "") if str(error) else ("failed", "an error that says nothing")
    except KeyboardInterrupt:
        raise
    except (Exception, Hang) as error:
        outcome, told = "failed", "".join(traceback.format_exception(error)[-12:])
    except BaseException as error:  # polars panics derive from it
        outcome, told = "failed", "".join(traceback.format_exception(error)[-12:])
    taken_s = time.monotonic() - start
    if watcher.seen:
        outcome, told = "failed", f"{told}\n" + "\n".join(watcher.seen[:5])
    return outcome, told, taken_s


if __name__ == "__main__":
    sys.exit(main())
