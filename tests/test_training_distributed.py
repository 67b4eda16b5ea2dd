"""DPO in several processes: the same steps as in one, one clear error, nothing left running."""

import os
import signal
from contextlib import contextmanager

import pytest

from recloop.errors import SettingError, TrainingError
from recloop.progress import SILENT, Progress
from recloop.training.distributed import run_in_processes
from recloop.training.dpo import DpoConfig, train_dpo
from tiny_lm import build_tiny_lm
from training_cases import make_pairs, make_prompts

pytestmark = pytest.mark.slow  # every process imports TRL

CONFIG = DpoConfig(lr=2e-3, batch_size=2, gradient_accumulation_steps=2, save_steps=2, beta=0.3)
TWO = CONFIG.model_copy(update={"processes": 2})


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return build_tiny_lm(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def reference_lm(tmp_path_factory):
    return build_tiny_lm(tmp_path_factory.mktemp("reference model"), seed=1)


class Rows(Progress):
    def __init__(self):
        super().__init__(None)
        self.done = 0

    @contextmanager
    def stage(self, name, total=None, unit="steps"):
        self.total = total
        yield self.add

    def add(self, amount):
        self.done += amount


def kill_the_second(progress):
    if os.environ["RECLOOP_RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)


def stumble(progress):
    raise KeyError("not what it should be")


@pytest.mark.parametrize("lora", [False, True])
def test_two_processes_take_the_steps_of_one(lm, reference_lm, tmp_path, lora):
    prompts, pairs, rows = make_prompts(24), make_pairs(24), Rows()
    in_one = train_dpo(lm, reference_lm, prompts, pairs, CONFIG.model_copy(update={"lora": lora}), tmp_path / "1", 0)
    in_two = train_dpo(lm, reference_lm, prompts, pairs, TWO.model_copy(update={"lora": lora}), tmp_path / "2", 0, rows)
    assert len(in_two.log) == len(in_one.log) == 6
    for one, two in zip(in_one.log, in_two.log, strict=True):
        assert two == pytest.approx(one, rel=2e-4, abs=2e-5)
    assert (rows.done, rows.total) == (24, 24)
    assert sorted(f.name for f in in_two.folder.iterdir()) == sorted(f.name for f in in_one.folder.iterdir())
    assert not list(tmp_path.glob(".*"))  # no checkpoints are left


def test_an_error_in_a_process_is_the_error_of_the_call_and_what_was_reached_is_kept(lm, tmp_path):
    wild = TWO.model_copy(update={"lr": 1e30, "save_steps": 1})
    with pytest.raises(TrainingError, match=r"the loss must stay finite.*lower lr"):
        train_dpo(lm, lm, make_prompts(24), make_pairs(24), wild, tmp_path / "out", 0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("call", [kill_the_second, stumble])
def test_a_process_that_does_not_come_to_its_end_is_told_of(call):
    with pytest.raises(TrainingError, match=r"all 2 processes must come to their end.*with processes=1"):
        run_in_processes(call, 2, "do it", 1, SILENT)


def test_passes_that_cannot_be_shared_are_refused(lm, tmp_path):
    odd = TWO.model_copy(update={"gradient_accumulation_steps": 3})
    with pytest.raises(SettingError, match="got gradient_accumulation_steps=3 and processes=2; choose a multiple"):
        train_dpo(lm, lm, make_prompts(8), make_pairs(8), odd, tmp_path / "out", 0)


def test_by_itself_a_step_has_as_many_rows_whatever_the_number_of_processes():
    auto = DpoConfig()
    for processes in (1, 2, 5):
        shared = auto.model_copy(update={"processes": processes})
        assert shared.passes_of_each(1000) * processes == auto.passes_per_step(1000) == 10
