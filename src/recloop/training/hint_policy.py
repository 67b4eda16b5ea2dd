"""The hint policy: a small policy that reads a session's vector and chooses a hint, learnt by PPO.

An episode is one session: state, one action, its reward, the end. The rewards of all hints are known before, from one
answer each: learning asks no language model. A learnt policy is read without any learning library.

Axis letters: ``S`` sessions, ``H`` hints, ``D`` vector width.

Source: Re2LLM (arXiv 2403.16427), reinforcement utilisation; stable-baselines3's PPO. Deviations: discount 0, since
nothing is chained (the released code chains unrelated sessions with 0.999), no exploration that the policy does not
know of, and evaluation never runs in the training environment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel
from safetensors.numpy import load_file, save_file

from recloop.errors import DataError, TrainingError, needs_extra
from recloop.settings import setting, shown_first

if TYPE_CHECKING:
    from jaxtyping import Float, Int64


class PolicyConfig(BaseModel, frozen=True, extra="forbid"):
    """PPO, as the paper and its released code have it."""

    width: int = setting(64, "units of each of the two hidden layers", ge=1)
    lr: float = shown_first(3e-4, "learning rate", gt=0)
    clip: float = setting(0.05, "clip range of the probability ratio (PPO's epsilon)", gt=0, lt=1)
    epochs: int = shown_first(10, "passes over each batch of episodes", ge=1)
    batch_size: int = setting(32, "episodes per gradient step", ge=2)
    entropy: float = setting(0.01, "weight of the entropy bonus", ge=0)
    rollout: int = setting(512, "episodes between updates", ge=32)
    steps: int = shown_first(10_000, "episodes in all; none asks a language model", ge=1)


@dataclass(frozen=True, slots=True)
class HintPolicy:
    """A learnt policy: two tanh layers and a row of scores per hint.

    mean_D, scale_D: of the training sessions' vectors; inputs are centred and scaled with them.
    layers: weight and bias of each layer, in order.
    """

    mean_D: Float[np.ndarray, " D"]
    scale_D: Float[np.ndarray, " D"]
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]

    def scores(self, vectors_SD: Float[np.ndarray, "S D"]) -> Float[np.ndarray, "S H"]:
        """A score per hint, higher is likelier."""
        x = (vectors_SD - self.mean_D) / self.scale_D
        *hidden, (weight, bias) = self.layers
        for w, b in hidden:
            x = np.tanh(x @ w.T + b)
        return x @ weight.T + bias

    def choose(self, vectors_SD: Float[np.ndarray, "S D"]) -> Int64[np.ndarray, " S"]:
        """The likeliest hint of each session."""
        return self.scores(vectors_SD).argmax(axis=1)


@dataclass(frozen=True, slots=True)
class LearningPoint:
    """How the policy stood on the training sessions.

    step: episodes it had learnt from; 0 for the policy before any.
    reward: mean of its likeliest hints.
    entropy: the mean over sessions, in nats.
    """

    step: int
    reward: float
    entropy: float


def standardise(vectors_SD: Float[np.ndarray, "S D"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of each place of the vectors; a place that never changes has scale 1."""
    scale_D = vectors_SD.std(axis=0)
    return vectors_SD.mean(axis=0), np.where(scale_D > 1e-8, scale_D, 1.0)


def session_environment(states_SD: Float[np.ndarray, "S D"], rewards_SH: Float[np.ndarray, "S H"]) -> Any:
    """A gymnasium environment of one step per session; every session comes once before one comes again.

    Args:
        states_SD: float32, centred and scaled.
        rewards_SH: of each hint in each session.
    """
    with needs_extra("re2llm"):
        import gymnasium

    class SessionEnv(gymnasium.Env[np.ndarray, np.int64]):
        """One session: look at its state, choose a hint, take the reward."""

        def __init__(self) -> None:
            low_D, high_D = states_SD.min(axis=0), states_SD.max(axis=0)
            self.observation_space = gymnasium.spaces.Box(low_D, high_D, dtype=np.float32)
            self.action_space = gymnasium.spaces.Discrete(rewards_SH.shape[1])
            self._order: list[int] = []
            self._session = 0

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[np.ndarray, dict[str, Any]]:
            super().reset(seed=seed, options=options)
            if not self._order or seed is not None:
                self._order = self.np_random.permutation(len(states_SD)).tolist()
            self._session = self._order.pop()
            return states_SD[self._session].copy(), {}

        def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            reward = float(rewards_SH[self._session, int(action)])
            return states_SD[self._session].copy(), reward, True, False, {}

    return SessionEnv()


def learn_policy(
    vectors_SD: Float[np.ndarray, "S D"],
    rewards_SH: Float[np.ndarray, "S H"],
    config: PolicyConfig,
    seed: int,
    report: Callable[[int], None] = lambda _: None,
) -> tuple[HintPolicy, tuple[LearningPoint, ...]]:
    """A policy, learnt by PPO, of which hint to give to which session.

    Args:
        vectors_SD: of the training sessions.
        rewards_SH: gain of each hint over no hint; column 0, the empty hint, is 0.
        report: called with the episodes done since its last call.

    Returns:
        The policy, and how it stood before learning and after every update; the last point is the policy's.

    Raises:
        TrainingError: vectors or rewards are not finite, or there are too few of them.
    """
    if len(vectors_SD) != len(rewards_SH) or not len(vectors_SD) or rewards_SH.shape[1] < 2:
        raise TrainingError(
            f"a hint policy needs as many vectors as rewards, and two hints to choose from, got {len(vectors_SD)} "
            f"vectors and rewards of shape {rewards_SH.shape}; are there any hints?"
        )
    if not (np.isfinite(vectors_SD).all() and np.isfinite(rewards_SH).all()):
        raise TrainingError("vectors and rewards of sessions must be finite, got NaN; check the encoder")
    with needs_extra("re2llm"):
        from stable_baselines3.common.callbacks import BaseCallback

    mean_D, scale_D = standardise(vectors_SD)
    states_SD = ((vectors_SD - mean_D) / scale_D).astype(np.float32)
    learner = _learner(session_environment(states_SD, rewards_SH), config, seed)
    points: list[LearningPoint] = []

    class Watch(BaseCallback):
        """How the policy stands before every rollout, when all before it were learnt from, and at the end."""

        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            policy = _policy_of(learner, mean_D, scale_D)
            points.append(_learning_point(self.num_timesteps, policy.scores(vectors_SD), rewards_SH))

        def _on_rollout_end(self) -> None:
            report(config.rollout)

        _on_training_end = _on_rollout_start

    learner.learn(config.steps, callback=Watch())
    return _policy_of(learner, mean_D, scale_D), tuple(points)


def _learner(environment: Any, config: PolicyConfig, seed: int) -> Any:
    with needs_extra("re2llm"):
        from stable_baselines3 import PPO
        from stable_baselines3.common.logger import Logger

    learner = PPO(  # with its policy's own tanh layers
        "MlpPolicy",
        environment,
        learning_rate=config.lr,
        n_steps=config.rollout,
        batch_size=min(config.batch_size, config.rollout),
        n_epochs=config.epochs,
        gamma=0.0,
        clip_range=config.clip,
        ent_coef=config.entropy,
        policy_kwargs={"net_arch": [config.width] * 2},
        seed=seed,
        device="cpu",
    )
    learner.set_logger(Logger(folder=None, output_formats=[]))  # its own would leave a folder per call behind
    return learner


def _learning_point(step: int, scores_SH: np.ndarray, rewards_SH: np.ndarray) -> LearningPoint:
    logp_SH = scores_SH - np.logaddexp.reduce(scores_SH, axis=1, keepdims=True)
    entropy = float(-(np.exp(logp_SH) * logp_SH).sum(axis=1).mean())
    reward = float(rewards_SH[np.arange(len(rewards_SH)), scores_SH.argmax(axis=1)].mean())
    return LearningPoint(step, reward, entropy)


def _policy_of(learner: Any, mean_D: np.ndarray, scale_D: np.ndarray) -> HintPolicy:
    """The acting half of a stable-baselines3 model as plain matrices."""
    network = learner.policy
    linear = [*list(network.mlp_extractor.policy_net)[::2], network.action_net]
    arrays = [[x.detach().numpy().astype(np.float64) for x in (part.weight, part.bias)] for part in linear]
    return HintPolicy(mean_D.astype(np.float64), scale_D.astype(np.float64), tuple((w, b) for w, b in arrays))


def save_policy(file: Path, policy: HintPolicy) -> None:
    """The policy as a safetensors file."""
    arrays = {"mean_D": policy.mean_D, "scale_D": policy.scale_D}
    for number, (weight, bias) in enumerate(policy.layers):
        arrays |= {f"layer{number}.weight": weight, f"layer{number}.bias": bias}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, file)


def load_policy(file: Path) -> HintPolicy:
    """What `save_policy` wrote; DataError when it is something else."""
    try:
        arrays = load_file(file)
        num_layers = sum(name.endswith(".weight") for name in arrays)
        layers = tuple((arrays[f"layer{n}.weight"], arrays[f"layer{n}.bias"]) for n in range(num_layers))
        return HintPolicy(arrays["mean_D"], arrays["scale_D"], layers)
    except Exception as error:
        raise DataError(f"{file} must hold a hint policy, got {error}; run the stage again") from error
