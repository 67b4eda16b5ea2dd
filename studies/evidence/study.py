"""Studies as files: each TOML file names runs of DPO4Rec, cut into units of at most 45 minutes.

A unit is one run: one study, one variant (a change to the study's settings), one panel. A panel is a simulated
simulated log of its own, or another fold of a log's groups (`SplitConfig.fold`). Panels share no test user, each has
a seed of its own, and their test users can be added up (`moments`). As in cross-validation, users who report
in one turn may fit and reward in another.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recloop.errors import SettingError
from recloop.experiment.manifest import differing_keys
from recloop.methods.dpo4rec.config import Dpo4RecConfig

MAX_MINUTES = 45.0
SET_BY_THE_UNIT = ("seeds", "data_seed", "split.fold")
PATHS = ("path", "metadata", "item_knowledge", "kar")
Extra = Literal["transfer", "leakage"]
Place = Literal["choices", "main", "external", "ablations"]


class Variant(BaseModel):
    """A change to a study's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(description="as the page calls it")
    kind: str = Field(default="", description="choices: what is chosen among the variants of one kind")
    minutes: float | None = Field(
        default=None, gt=0, le=MAX_MINUTES, description="of a unit, on two cores; None: as the study says"
    )
    panels: tuple[int, ...] | None = Field(default=None, description="None: those of the study")
    extras: tuple[Extra, ...] = Field(default=(), description="measured beside the rows of the table")
    run: dict[str, Any] = Field(default={}, description="settings of the run that differ from the study's")


class Study(BaseModel):
    """Runs that belong together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(description="as the page calls it")
    about: str = Field(default="", description="a sentence or two for the page")
    place: Place = Field(description="which part of the page it fills")
    panels: tuple[int, ...] = Field(min_length=1, description="each is also a seed")
    panels_are: Literal["simulated", "turns"] = Field(
        default="simulated",
        description="simulated logs: each panel is a simulated data; turns: another fold of the groups of a log",
    )
    minutes: float = Field(gt=0, le=MAX_MINUTES, description="of a unit, about, on two cores")
    reuses_from: str | None = Field(
        default=None,
        description="study, or study.variant, from whose run of the same panel, if it is there, all is taken "
        "that would come out the same: completions and vectors, fits, trained language models",
    )
    transfer_from: str | None = Field(
        default=None, description="study, or study.variant, whose trained language model `transfer` reads"
    )
    claims: bool = Field(
        default=True,
        description="main: what was to be shown is asked of it; false where it is shown elsewhere",
    )
    base: str | None = Field(default=None, description="study whose settings of the run come first")
    run: dict[str, Any] = Field(default={}, description="settings of the run, as for `recloop run dpo4rec`")
    variants: dict[str, Variant] = Field(default={}, description="none: one variant, the study itself")

    @model_validator(mode="after")
    def _fits_together(self) -> Study:
        if self.variants and self.place != "ablations" and "base" not in self.variants:
            raise SettingError(
                f"a study with variants needs one called base, got {', '.join(self.variants)}; its tables are of that variant"
            )
        for name, variant in self.variants.items():
            if self.place == "choices" and not variant.kind:
                raise SettingError(f"an variant of a choice needs a kind, got none for {name}; say what it chooses")
        needs_transfer = any("transfer" in variant.extras for variant in self.variants.values())
        if needs_transfer and self.transfer_from is None:
            raise SettingError(
                "an variant with the extra transfer needs transfer_from, got none; name the study whose language "
                "model is taken"
            )
        return self


@dataclass(frozen=True, slots=True)
class Unit:
    """One run to be done.

    name: ``study.p1`` or ``study.variant.p1``; also its file's and its run folder's name.
    config: the run's, with paths relative to the folder of data sets.
    """

    name: str
    study: str
    variant: str
    panel: int
    minutes: float
    extras: tuple[Extra, ...]
    reuses_from: str | None
    transfer_from: str | None
    config: Dpo4RecConfig

    @property
    def settings(self) -> dict[str, Any]:
        """The run's settings as they are kept in the unit's file."""
        return self.config.model_dump(mode="json")


def read_studies(folder: Path) -> dict[str, Study]:
    """All studies of a folder by file name: a study after its base, else in the order of their names.

    Raises:
        SettingError: no study there, or one that does not hold together.
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
            f"studies are TOML files, got none in {folder}; run in a checkout of recloop, or set --studies"
        )
    whole = {name: study.model_copy(update={"run": settings_of(studies, name)}) for name, study in studies.items()}
    return dict(sorted(whole.items(), key=lambda item: _num_bases(studies, item[0])))


def _num_bases(studies: Mapping[str, Study], name: str) -> int:
    base = studies[name].base
    return 0 if base is None else 1 + _num_bases(studies, base)


def settings_of(studies: Mapping[str, Study], name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """A study's settings on top of those of its base.

    Raises:
        SettingError: a base is no study of the folder, or studies are each other's base.
    """
    if name not in studies or name in above:
        raise SettingError(
            f"the base of {above[-1]} must be another study of its folder ({', '.join(studies)}), "
            f"got {name}; correct base"
        )
    study = studies[name]
    return study.run if study.base is None else merged(settings_of(studies, study.base, (*above, name)), study.run)


def units_of(studies: Mapping[str, Study]) -> list[Unit]:
    """Every unit of every study, in the order in which they can be done: what gives comes before what takes.

    Raises:
        SettingError: a study's settings make no run, or it sets what its units set.
    """
    units: list[Unit] = []
    places = get_args(Place)
    for name, study in sorted(studies.items(), key=lambda item: places.index(item[1].place)):
        for variant_name, variant in (study.variants or {"": Variant(title=study.title)}).items():
            stem = f"{name}.{variant_name}" if variant_name else name
            for panel in study.panels if variant.panels is None else variant.panels:
                own, source = f"{stem}.p{panel}", _unit_name(study.reuses_from, panel)
                units.append(
                    Unit(
                        name=own,
                        study=name,
                        variant=variant_name,
                        panel=panel,
                        minutes=variant.minutes or study.minutes,
                        extras=variant.extras,
                        reuses_from=None if source == own else source,
                        transfer_from=_unit_name(study.transfer_from, panel),
                        config=run_config(stem, study, variant, panel),
                    )
                )
    return units


def run_config(stem: str, study: Study, variant: Variant, panel: int) -> Dpo4RecConfig:
    """The settings of one run."""
    settings = merged(study.run, variant.run)
    for key in SET_BY_THE_UNIT:
        if _holds(settings, key):
            raise SettingError(f"{stem} sets {key}, which each unit sets by its panel; leave it out")
    if study.panels_are == "simulated":
        settings |= {"data_seed": panel}
    else:
        settings["split"] = merged(settings.get("split", {}), {"fold": panel})
    try:
        return Dpo4RecConfig.model_validate(settings | {"seeds": [panel]})
    except ValidationError as error:
        raise SettingError(f"the settings of {stem} make no run: {error}; correct the study") from error


def with_data_folder(config: Dpo4RecConfig, folder: Path) -> Dpo4RecConfig:
    """The same with the paths of its data inside `folder`."""
    changes = {name: (folder / path).absolute() for name in PATHS if (path := getattr(config.data, name)) is not None}
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})


def chosen_units(units: Sequence[Unit], patterns: Sequence[str]) -> list[Unit]:
    """The units that a pattern (``*`` and ``?``) names, in their order.

    Raises:
        SettingError: a pattern names none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(unit.name, pattern) for unit in units):
            raise SettingError(f"no unit is called {pattern}; the units are {', '.join(unit.name for unit in units)}")
    return [unit for unit in units if any(fnmatchcase(unit.name, pattern) for pattern in patterns)]


def changed_settings(stored: Mapping[str, Any], unit: Unit) -> list[str]:
    """Where a unit's file was made with other settings than the study has now.

    A setting that did not exist then is passed over: it came with a default that is what was done before.
    """
    now = json.loads(json.dumps(unit.settings))
    return [line for line in differing_keys(stored, now) if not line.partition(": ")[2].startswith("absent, ")]


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` on top, table by table.

    Example:
        >>> merged({"dpo": {"lr": 1, "beta": 2}}, {"dpo": {"lr": 3}})
        {'dpo': {'lr': 3, 'beta': 2}}
    """
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[key] = merged(cast(dict[str, Any], old), cast(dict[str, Any], value)) if both else value
    return result


def _unit_name(stem: str | None, panel: int) -> str | None:
    return None if stem is None else f"{stem}.p{panel}"


def _holds(settings: Mapping[str, Any], key: str) -> bool:
    head, _, rest = key.partition(".")
    if head not in settings:
        return False
    return not rest or _holds(settings[head], rest)
