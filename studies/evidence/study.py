"""Studies as TOML files: each describes runs of DPO4Rec of at most 45 minutes.

A study run has one study, one setting (a change to the study's settings) and one fold. A fold is either a
simulated log of its own or another split of one log's users (`SplitConfig.fold`). Folds share no test user and
each has its own seed, so their test users can be pooled (`statistics`). As in cross-validation, the test users of
one fold may be train or reward users in another.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recloop.errors import SettingError
from recloop.experiment.manifest import differing_keys
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.settings import merged, validate

MAX_MINUTES = 45.0
SET_BY_THE_RUN = ("seeds", "data_seed", "split.fold")
PATHS = ("path", "metadata", "item_knowledge", "kar")  # of DataConfig
Extra = Literal["transfer", "leakage", "checked"]
Place = Literal["choices", "main", "external", "short", "ablations"]
SIDE_BY_SIDE: tuple[Place, ...] = ("short", "ablations")  # their settings are compared with one another


class Setting(BaseModel):
    """A change to the run's settings of a study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(description="its name on the page")
    kind: str = Field(default="", description="in a study of choices: what differs, such as reward or beta")
    minutes: float | None = Field(
        default=None, gt=0, le=MAX_MINUTES, description="of one run, on two cores; None: those of the study"
    )
    folds: tuple[int, ...] | None = Field(default=None, description="None: those of the study")
    extras: tuple[Extra, ...] = Field(default=(), description="measured beside the variants of the table")
    run: dict[str, Any] = Field(default={}, description="settings of the run that differ from the study's")


class Study(BaseModel):
    """Runs that belong together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(description="its name on the page")
    about: str = Field(default="", description="a sentence or two for the page")
    place: Place = Field(description="the part of the page that it fills")
    folds: tuple[int, ...] = Field(min_length=1, description="each is also a seed")
    folds_are: Literal["simulated", "splits"] = Field(
        default="simulated",
        description="simulated: each fold is a simulated log of its own; splits: another split of one log's users",
    )
    minutes: float = Field(gt=0, le=MAX_MINUTES, description="of one run, roughly, on two cores")
    reuses_from: str | None = Field(
        default=None,
        description="study, or study.setting: results that its run of the same fold has in common with this one "
        "are reused where that run folder exists (completions, vectors, fits, trained language models)",
    )
    transfer_from: str | None = Field(
        default=None, description="study, or study.setting, whose trained language model `transfer` evaluates"
    )
    claims: bool = Field(
        default=True,
        description="main and external: the claims are tested on it; false where another study has the same folds",
    )
    base: str | None = Field(default=None, description="study whose run settings this one starts from")
    extras: tuple[Extra, ...] = Field(default=(), description="those of a study without settings")
    run: dict[str, Any] = Field(default={}, description="settings of the run, as for `recloop run dpo4rec`")
    settings: dict[str, Setting] = Field(default={}, description="none: the study itself is the only setting")

    @model_validator(mode="after")
    def _fits_together(self) -> Study:
        if self.settings and self.place not in SIDE_BY_SIDE and "base" not in self.settings:
            raise SettingError(
                f"a study with settings needs one called base for its tables, got {', '.join(self.settings)}; add base"
            )
        if self.settings and self.extras:
            raise SettingError(
                f"extras of a study with settings are those of each setting, got {', '.join(self.extras)} for the "
                "study; move them to a setting"
            )
        for name, setting in self.settings.items():
            if self.place == "choices" and not setting.kind:
                raise SettingError(f"a setting of a choice needs a kind, got none for {name}; say what it changes")
        needs_transfer = any("transfer" in setting.extras for setting in self.settings.values())
        if needs_transfer and self.transfer_from is None:
            raise SettingError(
                "a setting with the extra transfer needs transfer_from, got none; name the study that trains the "
                "language model"
            )
        return self

    @property
    def has_bundled_lm(self) -> bool:
        """False where the language model is one that others made."""
        return str(self.run.get("lm", {}).get("name", "bundled")).startswith("bundled")


@dataclass(frozen=True, slots=True)
class StudyRun:
    """One run of DPO4Rec.

    name: ``study.fold1`` or ``study.setting.fold1``; also the name of its file and of its run folder.
    config: with paths relative to the folder of data sets.
    """

    name: str
    study: str
    setting: str
    fold: int
    minutes: float
    extras: tuple[Extra, ...]
    reuses_from: str | None
    transfer_from: str | None
    config: Dpo4RecConfig

    @property
    def config_json(self) -> dict[str, Any]:
        """The settings as they stand in the run's file."""
        return self.config.model_dump(mode="json")


def read_studies(folder: Path) -> dict[str, Study]:
    """All studies of a folder by file name, sorted by name, each after its base.

    Raises:
        SettingError: the folder has no study, or a study is wrong.
    """
    studies: dict[str, Study] = {}
    for file in sorted(folder.glob("*.toml")):
        try:
            tree = tomllib.loads(file.read_text(encoding="utf-8"))
            studies[file.stem] = Study.model_validate(tree)
        except (tomllib.TOMLDecodeError, ValidationError) as error:
            raise SettingError(f"{file} is no study: {error}; correct it") from error
    if not studies:
        raise SettingError(
            f"studies are TOML files, got none in {folder}; run this in a checkout of recloop, or set --studies"
        )
    whole = {name: study.model_copy(update={"run": settings_of(studies, name)}) for name, study in studies.items()}
    return dict(sorted(whole.items(), key=lambda item: _num_bases(studies, item[0])))


def _num_bases(studies: Mapping[str, Study], name: str) -> int:
    base = studies[name].base
    return 0 if base is None else 1 + _num_bases(studies, base)


def settings_of(studies: Mapping[str, Study], name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """A study's run settings on top of those of its base.

    Raises:
        SettingError: a base is not a study of the folder, or studies are each other's base.
    """
    if name not in studies or name in above:
        raise SettingError(
            f"the base of {above[-1]} must be another study of its folder ({', '.join(studies)}), "
            f"got {name}; correct base"
        )
    study = studies[name]
    return study.run if study.base is None else merged(settings_of(studies, study.base, (*above, name)), study.run)


def study_runs(studies: Mapping[str, Study]) -> list[StudyRun]:
    """Every run of every study, in an order in which a run comes after those whose results it reuses.

    Raises:
        SettingError: a study's settings are no valid run settings, or it sets what its folds set.
    """
    runs: list[StudyRun] = []
    places = get_args(Place)
    for name, study in sorted(studies.items(), key=lambda item: places.index(item[1].place)):
        for setting_name, setting in (study.settings or {"": Setting(title=study.title, extras=study.extras)}).items():
            stem = f"{name}.{setting_name}" if setting_name else name
            for fold in study.folds if setting.folds is None else setting.folds:
                own = f"{stem}.fold{fold}"
                source, trained = (
                    f"{other}.fold{fold}" if other else None for other in (study.reuses_from, study.transfer_from)
                )
                runs.append(
                    StudyRun(
                        name=own,
                        study=name,
                        setting=setting_name,
                        fold=fold,
                        minutes=setting.minutes or study.minutes,
                        extras=setting.extras,
                        reuses_from=None if source == own else source,
                        transfer_from=trained,
                        config=run_config(stem, study, setting, fold),
                    )
                )
    return runs


def run_config(stem: str, study: Study, setting: Setting, fold: int) -> Dpo4RecConfig:
    """The settings of one run."""
    settings = merged(study.run, setting.run)
    for key in SET_BY_THE_RUN:
        if _holds(settings, key):
            raise SettingError(f"{stem} sets {key}, which each run sets by its fold; leave it out")
    if study.folds_are == "simulated":
        settings |= {"data_seed": fold}
    else:
        settings["split"] = merged(settings.get("split", {}), {"fold": fold})
    try:
        return validate(Dpo4RecConfig, settings | {"seeds": [fold]})
    except SettingError as error:
        raise SettingError(f"the settings of {stem} are no valid run: {error}; correct the study") from error


def with_data_folder(config: Dpo4RecConfig, folder: Path) -> Dpo4RecConfig:
    """The same settings with the paths of the data inside `folder`."""
    changes = {name: (folder / path).absolute() for name in PATHS if (path := getattr(config.data, name)) is not None}
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})


def chosen_runs(runs: Sequence[StudyRun], patterns: Sequence[str]) -> list[StudyRun]:
    """The runs whose names match a pattern (``*`` and ``?``), in their order.

    Raises:
        SettingError: a pattern matches none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(run.name, pattern) for run in runs):
            raise SettingError(f"no study run matches {pattern}; the runs are {', '.join(run.name for run in runs)}")
    return [run for run in runs if any(fnmatchcase(run.name, pattern) for pattern in patterns)]


def changed_settings(stored: Mapping[str, Any], study_run: StudyRun) -> list[str]:
    """The settings in which a run's file differs from its study.

    A setting that only one side has is passed over: a later one has a default that does what was done before, and
    one that no longer exists is a constant with the value that it had.
    """
    now = json.loads(json.dumps(study_run.config_json))
    lines = [(line, line.partition(": ")[2]) for line in differing_keys(stored, now)]
    return [line for line, values in lines if not values.startswith("absent, ") and not values.endswith(", now absent")]


def _holds(settings: Mapping[str, Any], key: str) -> bool:
    head, _, rest = key.partition(".")
    if head not in settings:
        return False
    return not rest or _holds(settings[head], rest)
