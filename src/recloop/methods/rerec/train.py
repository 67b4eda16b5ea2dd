"""Teaching the form of an answer, then reinforcement: requests in, a better language model out."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recloop.experiment.step import StepKind
from recloop.files import atomic_write_json
from recloop.methods.rerec.config import RequestVariant
from recloop.methods.rerec.data import RequestStudy, RequestTask
from recloop.methods.study import LmRef, derived_seed
from recloop.prompts.lines import clean_value, history_items
from recloop.prompts.request import reference_answer
from recloop.prompts.request_answer import AnswerStatus, read_answer
from recloop.records import Condition, Group, Pair, Request
from recloop.rewards.advantages import Penalty, wrong_spans
from recloop.rewards.curriculum import Epoch, difficulty, plan_epoch
from recloop.rewards.request_reward import reward_answer
from recloop.training.grpo import run_grpo
from recloop.training.grpo_config import ANSWERS, MOMENTS, AnswerReward, EpochShare, ScoredAnswer, Scorer
from recloop.training.result import TrainingRun
from recloop.training.sft import run_sft

SUPERVISED = "supervised"
SUPERVISE = StepKind("train", reads=("sft",), part="supervised")
REINFORCE = StepKind("train", reads=("grpo",))


def supervise(study: RequestStudy, task: RequestTask, lm: LmRef, seed: int) -> LmRef:
    """Fine-train on the canonical answers to the train users' requests."""
    requests = task.requests[Group.TRAIN]
    name = f"{SUPERVISED}.s{seed}"
    with study.step(SUPERVISE, name, {"lm": lm.digest, "requests": task.tests.digest}, f"lm/{name}") as step:
        if not step.is_done:
            step.scratch.mkdir(parents=True, exist_ok=True)
            run = TrainingRun(
                lm.folder,
                step.scratch / "model",
                derived_seed(seed, "supervise"),
                scratch=step.scratch / "checkpoints",
                progress=study.progress,
            )
            trained = run_sft(run, task.tests.prompts, canonical_answers(task, requests), study.config.sft)
            shutil.copytree(trained.folder, step.folder, dirs_exist_ok=True)
            step.log(*({"lm": SUPERVISED, "seed": seed, **row} for row in trained.log))
            step.note(
                requests_trained=trained.num_rows,
                requests_thinned=trained.num_thinned,
                requests_too_long=trained.num_too_long,
            )
    return LmRef(SUPERVISED, study.run.folder(step.name), study.run.digest(step.name))


def canonical_answers(task: RequestTask, requests: Sequence[Request]) -> list[Pair]:
    """The canonical answer to every request, as fine-training takes it."""
    shown = history_items(task.dataset)
    pairs: list[Pair] = []
    for request in requests:
        mentioned = shown(request.mentioned)
        answer = reference_answer(
            task.dataset.attributes,
            shown(request.candidates),
            [Condition(one.attribute, clean_value(one.value)) for one in request.conditions],
            request.candidates.index(request.answer),
            mentioned[0] if mentioned else None,
        )
        pairs.append(Pair(0, request.number, 0, 1, answer, "", 1.0, 0.0))
    return pairs


@dataclass(frozen=True, slots=True)
class Reinforcement:
    """What the epochs of one variant and seed share; `requests` of the reward users, by number."""

    study: RequestStudy
    task: RequestTask
    reference_lm: LmRef
    vectors_ID: np.ndarray
    variant: RequestVariant
    seed: int
    requests: Mapping[int, Request]


def reinforce(
    study: RequestStudy,
    task: RequestTask,
    reference_lm: LmRef,
    vectors_ID: np.ndarray,
    variant: RequestVariant,
    seed: int,
) -> LmRef:
    """GRPO over the reward users' requests, epoch by epoch, each planned by the rewards of the last one."""
    requests = {request.number: request for request in thinned(study, task, seed)}
    shared = Reinforcement(study, task, reference_lm, vectors_ID, variant, seed, requests)
    known = dict.fromkeys(requests, 1.0)  # no rewards yet
    lm, not_asked, epoch, num_asked, passed = reference_lm, set(requests), 0, 0, 0.0
    batch, epochs = study.config.grpo.requests_per_step, study.config.grpo.epochs
    budget = max(1, len(requests) // batch) * batch * epochs
    while passed < 1:
        plan = plan_requests(study, known, variant, seed, epoch, not_asked).cut_to(budget - num_asked)
        not_asked = set(requests) - set(plan.numbers)
        num_asked += len(plan.numbers)
        start, passed = passed, num_asked / budget if variant.curriculum.same_budget else (epoch + 1) / epochs
        lm, rewards = one_epoch(shared, lm, plan, epoch, (start, passed))
        known |= {number: difficulty(of_request) for number, of_request in rewards.items()}
        epoch += 1
    return LmRef(variant.name, lm.folder, lm.digest)


def thinned(study: RequestStudy, task: RequestTask, seed: int) -> list[Request]:
    """The reward users' requests, at most `max_pairs` of them."""
    requests, most = task.requests[Group.REWARD], study.config.grpo.max_pairs
    if len(requests) <= most:
        return list(requests)
    drawn = np.random.default_rng([seed, 0x61]).choice(len(requests), most, replace=False)
    return [requests[place] for place in sorted(drawn.tolist())]


def plan_requests(
    study: RequestStudy,
    known: Mapping[int, float],
    variant: RequestVariant,
    seed: int,
    epoch: int,
    not_asked: Collection[int] = (),
) -> Epoch:
    """What an epoch asks: the curriculum's choice, or everything in random order (always at first)."""
    batch = study.config.grpo.requests_per_step
    if epoch and variant.curriculum.is_on:
        return plan_epoch(known, batch, variant.curriculum, not_asked)
    order = np.random.default_rng([seed, epoch, 0xE0]).permutation(sorted(known)).tolist()
    num_asked = len(order) // batch * batch
    return Epoch(tuple(order[:num_asked]), num_left_over=len(order) - num_asked)


def one_epoch(
    shared: Reinforcement, lm: LmRef, plan: Epoch, epoch: int, passed: tuple[float, float]
) -> tuple[LmRef, dict[int, list[float]]]:
    """An epoch of GRPO between two shares `passed` of the training: the model, and the rewards of each request."""
    study, task, variant = shared.study, shared.task, shared.variant
    name = f"{variant.name}.s{shared.seed}.e{epoch}"
    inputs = {
        "lm": lm.digest,
        "reference_lm": shared.reference_lm.digest,
        "requests": task.tests.digest,
        "vectors": study.run.digest("embed"),
        "asked": hashlib.sha256(json.dumps(plan.numbers).encode()).hexdigest(),
        "variant": variant.model_dump(mode="json"),
        "passed": list(passed),
    }
    with study.step(REINFORCE, name, inputs, f"lm/{name}") as step:
        if not step.is_done:
            step.scratch.mkdir(parents=True, exist_ok=True)
            run = TrainingRun(
                lm.folder,
                step.scratch / "model",
                derived_seed(shared.seed, f"grpo {epoch}"),
                shared.reference_lm.folder,
                step.scratch / "checkpoints",
                study.progress,
            )
            score = scorer(task, shared.requests, shared.vectors_ID, variant)
            digest = json.dumps([inputs["requests"], inputs["vectors"], inputs["variant"]])
            done = run_grpo(
                run,
                [task.tests.prompts[number] for number in plan.numbers],
                AnswerReward(score, digest, variant.advantage),
                study.config.grpo,
                EpochShare(*passed, lm.folder / MOMENTS if epoch else None),
            )
            shutil.copytree(done.trained.folder, step.folder, dirs_exist_ok=True)
            if passed[1] < 1:  # another epoch follows
                shutil.copy(done.moments, step.folder / MOMENTS)
            atomic_write_json(step.folder / ANSWERS, [dict(row) for row in done.answers])
            told = {"lm": variant.name, "seed": shared.seed, "epoch": epoch}
            terms = [term for term in done.answers[0] if term != "number"]
            means = {f"mean_{term}": sum(row[term] for row in done.answers) / len(done.answers) for term in terms}
            step.log(*({**told, **row} for row in done.trained.log), {**told, **means})
            step.note(
                requests_asked=len(plan.numbers),
                requests_dropped=plan.num_dropped,
                requests_returned=plan.num_returned,
                requests_resting=plan.num_resting,
                requests_left_over=plan.num_left_over + done.trained.num_thinned,
                answers=len(done.answers),
            )
    folder = study.run.folder(step.name)
    rewards: dict[int, list[float]] = {}
    for row in json.loads((folder / ANSWERS).read_text(encoding="utf-8")):
        rewards.setdefault(row["number"], []).append(row["reward"])
    return LmRef(variant.name, folder, study.run.digest(step.name)), rewards


def scorer(
    task: RequestTask, requests: Mapping[int, Request], vectors_ID: np.ndarray, variant: RequestVariant
) -> Scorer:
    """The reward of an answer to one of these requests, and which of its paragraphs are wrong."""
    penalises_undecided = variant.advantage.penalty is not Penalty.PUBLISHED

    def score(number: int, text: str, is_finished: bool) -> ScoredAnswer:
        request = requests[number]
        answer = read_answer(text, task.tests.candidate_titles(request), is_finished=is_finished)
        terms = reward_answer(answer, request, task.graph, vectors_ID, variant.reward)
        reward = terms.total(variant.reward)
        return ScoredAnswer(
            reward,
            reward - terms.alignment(variant.reward),
            wrong_spans(answer, request.candidates.index(request.answer), undecided=penalises_undecided),
            {"ndcg": terms.ndcg, "qas": terms.qas, "pas": terms.pas, "format": terms.format}
            | {status.value: float(answer.status is status) for status in AnswerStatus},
        )

    return score
