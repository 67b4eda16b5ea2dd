"""The settings of a language model: which one, how it is sampled, and how a server is asked."""

from __future__ import annotations

from pydantic import BaseModel, field_validator, model_validator

from recloop.errors import SettingError
from recloop.llm.server.config import SCHEME, PaceConfig, ServerConfig, parse_address
from recloop.llm.server.cost import BudgetConfig, PriceConfig
from recloop.settings import setting, shown_first

# The built-in kinds of language models: what a name looks like, and what it stands for.
LANGUAGE_MODELS = {
    "bundled": "writes preferences, 3.3M parameters",
    "bundled:answers": "ranks and answers requests, 3.3M parameters",
    "smollm2": "SmolLM2-135M-Instruct with recloop's lessons, 135M parameters, for a log of one's own; recloop fetch "
    "smollm2 gets it",
    "smollm2:base": "the same without lessons",
    "transformers:NAME_OR_FOLDER": "a causal LM with a chat template",
    "openai:BASE_URL#MODEL": "one behind an OpenAI-compatible server",
}
READ_IN_PROCESS = ("device", "batch_tokens", "load_in_4bit")
READ_BY_SERVER = ("server", "pace", "budget", "prices")


class LocalLmConfig(BaseModel, frozen=True, extra="forbid"):
    """Which language model in this process writes, and how."""

    name: str = shown_first("bundled", "; ".join(f"{name}: {what}" for name, what in LANGUAGE_MODELS.items()))
    top_p: float = setting(1.0, "share of the probability mass sampled from", gt=0, le=1)
    max_tokens: int = shown_first(64, "longest completion, its end token included", ge=1)
    device: str = setting("auto", "auto takes CUDA where there is one; otherwise a torch device")
    batch_tokens: int = setting(24_576, "cache slots of one batch, all its completions together", ge=1)
    load_in_4bit: bool = setting(
        False,
        "keep the linear layers in 4 bits while sampling; needs bitsandbytes. dpo.load_in_4bit does it while training",
    )

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        kind, _, rest = name.partition(":")
        if name not in LANGUAGE_MODELS and not (kind in ("transformers", "openai") and rest):
            raise SettingError(f"a language model must be {' or '.join(LANGUAGE_MODELS)}")
        if kind == "openai":
            parse_address(name)
        return name


class GpuConfig(BaseModel, frozen=True, extra="forbid"):
    """How fast one GPU is with this model, all prompts together, and what it costs: read by plans alone."""

    read_per_s: float | None = setting(None, "prompt tokens a second", gt=0)
    written_per_s: float | None = setting(None, "completion tokens a second", gt=0)
    trained_per_s: float | None = setting(None, "tokens a second of training, prompts and completions", gt=0)
    price: float = setting(0.0, "an hour of one GPU", ge=0)
    currency: str = setting("USD", "what the price is in; only shown", max_length=8)


class LmConfig(LocalLmConfig, frozen=True):
    """Which language model writes, here or behind a server, and how it is sampled."""

    temperature: float = shown_first(1.0, "of sampling; 1 is the model's own distribution", gt=0, le=10)
    gpu: GpuConfig = setting(GpuConfig(), "a plan's: how fast one GPU is with it, and what an hour costs")
    server: ServerConfig = setting(ServerConfig(), "behind a server: what it is sent")
    pace: PaceConfig = setting(PaceConfig(), "behind a server: how fast, and with which key")
    budget: BudgetConfig = setting(BudgetConfig(), "behind a server: caps over the run")
    prices: PriceConfig = setting(PriceConfig(), "behind a server: what it costs")

    @model_validator(mode="after")
    def _holds_together(self) -> LmConfig:
        where = "behind a server" if self.uses_server else "in this process"
        for field in READ_IN_PROCESS if self.uses_server else READ_BY_SERVER:
            if getattr(self, field) != type(self).model_fields[field].default:
                raise SettingError(f"lm.{field} is not read for a model {where} ({self.name}), got it; leave it out")
        return self

    @property
    def uses_server(self) -> bool:
        return self.name.startswith(SCHEME)
