"""The settings of a language model: which one, how it is sampled, and how a server is asked."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from recloop.errors import SettingError
from recloop.llm.server.config import SCHEME, PaceConfig, ServerConfig, parse_address
from recloop.llm.server.cost import BudgetConfig, PriceConfig

# The built-in kinds of language models: what a name looks like, and what it stands for.
LANGUAGE_MODELS = {
    "bundled": "writes preferences, 3.3M parameters",
    "bundled:answers": "ranks and answers requests, 3.3M parameters",
    "transformers:NAME_OR_FOLDER": "a causal LM with a chat template",
    "openai:BASE_URL#MODEL": "one behind an OpenAI-compatible server",
}
READ_IN_PROCESS = ("device", "batch_tokens", "load_in_4bit")
READ_BY_SERVER = ("server", "pace", "budget", "prices")


class LmConfig(BaseModel):
    """Which language model writes, and how it is sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        json_schema_extra={"shown_first": True},
        default="bundled",
        description="; ".join(f"{name}: {what}" for name, what in LANGUAGE_MODELS.items()),
    )
    temperature: float = Field(
        json_schema_extra={"shown_first": True},
        default=1.0,
        gt=0,
        le=10,
        description="of sampling; 1 is the model's own distribution",
    )
    top_p: float = Field(default=1.0, gt=0, le=1, description="share of the probability mass sampled from")
    max_tokens: int = Field(
        json_schema_extra={"shown_first": True},
        default=64,
        ge=1,
        description="longest completion, its end token included",
    )
    device: str = Field(default="auto", description="auto takes CUDA where there is one; otherwise a torch device")
    batch_tokens: int = Field(
        default=24_576, ge=1, description="cache slots of one batch, all its completions together"
    )
    load_in_4bit: bool = Field(
        default=False,
        description="keep the linear layers in 4 bits while sampling; needs bitsandbytes. "
        "dpo.load_in_4bit does it while training",
    )
    server: ServerConfig = Field(default=ServerConfig(), description="behind a server: what it is sent")
    pace: PaceConfig = Field(default=PaceConfig(), description="behind a server: how fast, and with which key")
    budget: BudgetConfig = Field(default=BudgetConfig(), description="behind a server: caps over the run")
    prices: PriceConfig = Field(default=PriceConfig(), description="behind a server: what it costs")

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        kind, _, rest = name.partition(":")
        if name not in LANGUAGE_MODELS and not (kind in ("transformers", "openai") and rest):
            raise SettingError(f"a language model must be {' or '.join(LANGUAGE_MODELS)}")
        if kind == "openai":
            parse_address(name)
        return name

    @model_validator(mode="after")
    def _holds_together(self) -> LmConfig:
        unread = READ_IN_PROCESS if self.uses_server else READ_BY_SERVER
        for field in unread:
            if getattr(self, field) != type(self).model_fields[field].default:
                whose = "a model behind a server" if self.uses_server else "a model in this process"
                raise SettingError(f"lm.{field} is not read for {whose} ({self.name}), got it; leave it out")
        return self

    @property
    def uses_server(self) -> bool:
        """Whether the language model is behind a server."""
        return self.name.startswith(SCHEME)
