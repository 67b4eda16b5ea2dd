"""Training in several processes by accelerate: the steps of one process, one clear error, nothing left running."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from recloop.errors import RunError, SettingError, TrainingError
from recloop.training.dpo import DpoConfig
from recloop.training.launch import main
from recloop.training.processes import CONFIGS, launch
from recloop.training.result import TrainingBudget
from tiny_lm import build_tiny_lm
from training_cases import make_pairs, make_prompts, train_dpo

CONFIG = DpoConfig(learning_rate=2e-3, batch_size=2, gradient_accumulation_steps=2, save_steps=2, beta=0.3)
# Without a GPU torchrun's processes talk by gloo. MULTI_CPU would want MPI.
ON_CPU = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_GPU", "mixed_precision": "no"}


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return build_tiny_lm(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def reference_lm(tmp_path_factory):
    return build_tiny_lm(tmp_path_factory.mktemp("reference model"), seed=1)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The settings of DPO in two processes on the CPU, which talk by gloo."""
    file = tmp_path_factory.mktemp("accelerate") / "two.yaml"
    file.write_text(yaml.safe_dump({**ON_CPU, "num_processes": 2, "num_machines": 1, "machine_rank": 0}))
    return CONFIG.model_copy(update={"accelerate_config": str(file)})


def weights_of(folder):
    import torch
    from safetensors.torch import load_file

    (file,) = folder.glob("*.safetensors")
    return torch.cat([part.flatten() for _, part in sorted(load_file(file).items())])


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
def test_two_processes_take_the_steps_of_one(lm, reference_lm, two, tmp_path, lora):
    prompts, pairs = make_prompts(24), make_pairs(24)
    in_one, in_two = (
        train_dpo(lm, reference_lm, prompts, pairs, config.model_copy(update={"lora": lora}), tmp_path / name, 0)
        for name, config in (("1", CONFIG), ("2", two))
    )
    assert len(in_two.log) == len(in_one.log) == 6
    for one, other in zip(in_one.log, in_two.log, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5, abs=1e-5)
        assert other == pytest.approx(one, rel=2e-4, abs=2e-5)
    assert (weights_of(in_one.folder) - weights_of(in_two.folder)).abs().max() < 1e-5
    assert sorted(f.name for f in in_two.folder.iterdir()) == sorted(f.name for f in in_one.folder.iterdir())
    assert not list(tmp_path.glob(".*"))  # no checkpoints are left


@pytest.mark.slow
def test_an_error_in_a_process_is_the_error_of_the_call(lm, two, tmp_path):
    wild = two.model_copy(update={"learning_rate": 1e30, "save_steps": 1})
    with pytest.raises(TrainingError, match=r"the loss must stay finite.*lower learning_rate"):
        train_dpo(lm, lm, make_prompts(24), make_pairs(24), wild, tmp_path / "out", 0)
    assert not (tmp_path / "out").exists()


DIES = """
import os, signal
if os.environ["RANK"] == "1":
    os.kill(os.getpid(), signal.SIGKILL)
import torch
torch.distributed.init_process_group("gloo")
"""


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_and_is_told_of(two, tmp_path, monkeypatch):
    # The module that accelerate runs is replaced by one whose second process dies while the first waits for it.
    package = tmp_path / "replaced" / "recloop" / "training"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    (package / "launch.py").write_text(DIES)
    monkeypatch.setenv("PYTHONPATH", str(package.parent.parent))
    with pytest.raises(TrainingError, match=r"one died .accelerate launch ended with 1.*run it again"):
        launch(tmp_path / "job", {}, two.accelerate_config)
    assert "Signal 9" in (tmp_path / "job" / "launch.log").read_text()


def kill_the_second(scratch, job):
    """SIGKILL to the process of rank 1 that does the job of this folder, once a checkpoint is whole."""
    while not list(scratch.glob("checkpoint-*/complete")):
        time.sleep(0.02)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_second = b"\0RANK=1\0" in b"\0" + (process / "environ").read_bytes()
            if is_second and str(job).encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue


@pytest.mark.slow
def test_training_of_which_a_process_was_killed_goes_on_to_the_same_end(lm, two, tmp_path):
    told = {"lora": True, "save_steps": 1}
    config, prompts, pairs = two.model_copy(update=told), make_prompts(48), make_pairs(48)
    whole = train_dpo(lm, lm, prompts, pairs, config, tmp_path / "whole", 0)
    scratch = tmp_path / "scratch"
    killer = threading.Thread(target=kill_the_second, args=(scratch, tmp_path / ".out.job"), daemon=True)
    killer.start()
    with pytest.raises(TrainingError, match=r"one died .*What was reached is kept: run it again"):
        train_dpo(lm, lm, prompts, pairs, config, tmp_path / "out", 0, scratch=scratch)
    killer.join()
    first = max(int(folder.name.partition("-")[2]) for folder in scratch.glob("checkpoint-*"))
    assert 1 <= first < len(whole.log)
    assert not (tmp_path / "out").exists()
    resumed = train_dpo(lm, lm, prompts, pairs, config, tmp_path / "out", 0, scratch=scratch)
    assert (weights_of(resumed.folder) == weights_of(whole.folder)).all()
    assert resumed.log == whole.log


SCRIPT = """
import sys
from pathlib import Path
from recloop.training.dpo import DpoConfig
from training_cases import make_pairs, make_prompts, train_dpo

lm, out = Path(sys.argv[1]), Path(sys.argv[2])
trained = train_dpo(lm, lm, make_prompts(8), make_pairs(8), DpoConfig(batch_size=2), out, 0)
assert trained.folder.is_dir(), "every process finds the model"
"""


@pytest.mark.slow
def test_a_script_under_accelerate_launch_trains_in_all_processes(lm, two, tmp_path, monkeypatch):
    script, tests = tmp_path / "script.py", Path(__file__).parent
    script.write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", f"{tests.parent / 'src'}:{tests}")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", two.accelerate_config]
    subprocess.run([*command, str(script), str(lm), str(tmp_path / "out")], check=True)
    facts = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (facts["num_rows"], len(facts["log"])) == (8, 2)  # 4 rows a step: 2 in each process


def test_passes_that_cannot_be_shared_are_refused():
    with pytest.raises(SettingError, match="got gradient_accumulation_steps=3 and 2 processes; choose a multiple"):
        TrainingBudget(gradient_accumulation_steps=3).passes_per_step(100, 2)


def test_by_itself_a_step_has_as_many_rows_whatever_the_number_of_processes():
    for processes in (1, 2, 5):
        assert TrainingBudget().passes_per_step(1000, processes) * processes == 10


@pytest.mark.parametrize("name", ["ddp", "fsdp", "deepspeed_zero3"])
def test_the_shipped_configurations_are_accelerates_and_need_gpus(name, tmp_path):
    from accelerate.commands.config.config_args import load_config_from_file

    pytest.importorskip("torch")
    assert load_config_from_file(str(CONFIGS / f"{name}.yaml")).num_processes == 2
    with pytest.raises(SettingError, match="needs two GPUs or more, got 0"):
        launch(tmp_path, {}, name)


def test_an_unknown_configuration_is_refused(tmp_path):
    with pytest.raises(SettingError, match="must be ddp, deepspeed_zero3, fsdp or a YAML file, got dpp"):
        launch(tmp_path, {}, "dpp")
    with pytest.raises(RunError, match=r"a folder with job\.json is wanted, got none"):
        main([])
