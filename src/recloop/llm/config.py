"""The settings of a language model: which one, how it is sampled, and how a server is asked."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from recloop.errors import SettingError
from recloop.llm.server.config import SCHEME, EndpointConfig, PaceConfig, parse_server_name
from recloop.llm.server.cost import BudgetConfig, PriceConfig

READ_IN_PROCESS = ("device", "batch_tokens", "load_in_4bit")
READ_BY_SERVER = ("endpoint", "pace", "budget", "prices")
LM_NAME = r"^(bundled|bundled:answers|transformers:.+|openai:.+)$"


class LmConfig(BaseModel):
    """Which language model writes, and how it is sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        default="bundled",
        pattern=LM_NAME,
        description="bundled, which writes preferences; bundled:answers, which ranks and answers requests; "
        "transformers:NAME_OR_FOLDER for a causal LM with a chat template; "
        "openai:BASE_URL#MODEL for one behind an OpenAI-compatible endpoint",
    )
    temperature: float = Field(default=1.0, gt=0, le=10, description="of sampling; 1 is the model's own distribution")
    top_p: float = Field(default=1.0, gt=0, le=1, description="share of the probability mass sampled from")
    max_tokens: int = Field(default=64, ge=1, description="longest completion, its end token included")
    device: str = Field(default="auto", description="auto takes CUDA where there is one; otherwise a torch device")
    batch_tokens: int = Field(
        default=24_576, ge=1, description="cache slots of one batch, all its completions together"
    )
    load_in_4bit: bool = Field(
        default=False,
        description="keep the linear layers in 4 bits while sampling; needs bitsandbytes. "
        "dpo.load_in_4bit does it while training",
    )
    endpoint: EndpointConfig = Field(default=EndpointConfig(), description="a model behind a server: what it is sent")
    pace: PaceConfig = Field(default=PaceConfig(), description="a model behind a server: how fast, and as whom")
    budget: BudgetConfig = Field(default=BudgetConfig(), description="a model behind a server: caps over the run")
    prices: PriceConfig = Field(default=PriceConfig(), description="a model behind a server: what it costs")

    @model_validator(mode="after")
    def _holds_together(self) -> LmConfig:
        if self.uses_server:
            parse_server_name(self.name)
        unread = READ_IN_PROCESS if self.uses_server else READ_BY_SERVER
        for field in unread:
            if getattr(self, field) != type(self).model_fields[field].default:
                whose = "a model behind an endpoint" if self.uses_server else "a model in this process"
                raise SettingError(f"lm.{field} is not read for {whose} ({self.name}), got it; leave it out")
        return self

    @property
    def uses_server(self) -> bool:
        """Whether the language model is behind a server."""
        return self.name.startswith(SCHEME)
