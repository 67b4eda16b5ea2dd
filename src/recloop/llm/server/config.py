"""Settings of a language model behind an OpenAI-compatible server, and its address."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, model_validator

from recloop.errors import SettingError
from recloop.llm.server.redaction import KINDS, REGIONS, Kind
from recloop.settings import setting

SCHEME, WEIGHTS_SCHEME = "openai:", "transformers:"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OWN_FIELDS = frozenset({"model", "messages", "n", "seed", "stream", "temperature", "top_p"})
UNDECIDING = {"revision", "weights", "trained_name"}  # in the name by themselves, or of no effect on an answer


class ServerConfig(BaseModel, frozen=True, extra="forbid"):
    """What a server is sent beside the prompt, and which weights it has: what decides an answer and enters the name."""

    revision: str = setting(
        "",
        "which weights the server has, in your words; another revision means other completions. A "
        "provider that exchanges the model behind its name does not tell",
        max_length=200,
    )
    weights: str = setting(
        "",
        "transformers:NAME_OR_FOLDER of the model that the server has, to train it and to count its "
        "tokens; empty: it is only measured (rounds = 0) and tokens are estimated",
    )
    trained_name: str = setting(
        "{name}", "what the server calls a trained model: {name} is trained.s0 or such, {folder} its folder"
    )
    completions_per_request: int = setting(
        8, "n of a request, where the server takes it; 1 gives each completion its own seed", ge=1, le=128
    )
    send_seed: bool = setting(True, "send a seed made from seed and completion number")
    length_field: Literal["max_tokens", "max_completion_tokens"] = setting(
        "max_tokens", "what the server calls the longest answer"
    )
    extra_body: dict[str, Any] = setting({}, 'more fields of each request, as JSON: {"chat_template_kwargs": {...}}')
    redact: tuple[Kind, ...] = setting(KINDS, "what is taken out of prompts before they are sent; empty for nothing")
    phone_regions: tuple[str, ...] = setting(
        REGIONS, "countries whose national telephone numbers redact takes out; international ones it always does"
    )

    @model_validator(mode="after")
    def _check_fields(self) -> ServerConfig:
        clash = (OWN_FIELDS | {self.length_field}) & set(self.extra_body)
        if clash:
            raise SettingError(f"extra_body may not set {min(clash)}, which recloop sets itself; leave it out")
        kind, colon, name = self.weights.partition(":")
        if self.weights and (kind + colon != WEIGHTS_SCHEME or not name):
            raise SettingError(
                f"lm.server.weights must be transformers:NAME_OR_FOLDER, got {self.weights}; or leave it empty"
            )
        if self.phone_regions != REGIONS:
            from phonenumbers import SUPPORTED_REGIONS

            for region in self.phone_regions:
                if region not in SUPPORTED_REGIONS:
                    raise SettingError(f"lm.server.phone_regions must be country codes such as US or DE, got {region}")
        return self


class PaceConfig(BaseModel, frozen=True, extra="forbid"):
    """How fast, how patiently and with which key a server is asked; may change while a run is stopped."""

    api_key_env: str = setting(
        "", "name of the environment variable that holds the key; empty: none is sent", max_length=200
    )
    allowed_hosts: tuple[str, ...] = setting(
        LOOPBACK, "hosts prompts may be sent to; name yours to send them off this machine"
    )
    max_concurrency: int = setting(64, "most requests open at once", ge=1, le=1024)
    requests_per_min: float | None = setting(None, "none: as fast as it answers", gt=0)
    tokens_per_min: float | None = setting(None, "read and written; none: no limit", gt=0)
    timeout_s: float = setting(120.0, "longest wait for one whole answer", gt=0)
    max_outage_s: float = setting(300.0, "without any answer so long, the run stops; resume goes on", gt=0)


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a language model is, and what it is called there."""

    base_url: str
    model: str

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).hostname or ""

    @property
    def is_loopback(self) -> bool:
        return self.host in LOOPBACK


def parse_address(name: str) -> ServerAddress:
    """``openai:<base_url>#<model>`` taken apart; SettingError when it is something else, or carries a password or key.

    Example:
        >>> parse_address("openai:http://127.0.0.1:8000/v1#llama")
        ServerAddress(base_url='http://127.0.0.1:8000/v1', model='llama')
    """
    base_url, _, model = name.removeprefix(SCHEME).partition("#")
    parts = urlsplit(base_url)
    if not name.startswith(SCHEME) or parts.scheme not in ("http", "https") or not parts.hostname or not model:
        raise SettingError(
            f"a language model behind a server must be openai:<base_url>#<model>, got {name!r}; "
            f"write for example openai:http://127.0.0.1:8000/v1#my-model"
        )
    if parts.username or parts.password or parts.query:
        raise SettingError(
            f"a base URL may not carry a user, password or query, got one for {parts.hostname}; "
            f"put the key into an environment variable and its name into lm.pace.api_key_env"
        )
    return ServerAddress(base_url.rstrip("/"), model)


def check_host(address: ServerAddress, pace: PaceConfig) -> None:
    """SettingError when prompts or a key would go where they may not."""
    if address.host not in pace.allowed_hosts:
        raise SettingError(
            f"prompts may be sent to {', '.join(pace.allowed_hosts) or 'no host'}, got {address.host}; "
            f"if they may leave this machine for it, add it to lm.pace.allowed_hosts"
        )
    if pace.api_key_env and address.base_url.startswith("http:") and not address.is_loopback:
        raise SettingError(
            f"a key may not travel unencrypted, got {address.base_url} with lm.pace.api_key_env; "
            f"use https, or leave the key out"
        )


def read_key(pace: PaceConfig) -> str | None:
    """The key from the environment; None when none is wanted, SettingError when it is absent."""
    if not pace.api_key_env:
        return None
    key = os.environ.get(pace.api_key_env, "").strip()
    if not key:
        raise SettingError(f"lm.pace.api_key_env names {pace.api_key_env}, got no such environment variable; export it")
    return key


def server_identity(address: ServerAddress, config: ServerConfig, revision: str) -> str:
    """A language model's name: where it is, which one, and a hash of the settings that decide its answers."""
    deciding = config.model_dump(mode="json", exclude=UNDECIDING)
    settings = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:8]
    mark = f"@{revision}" if revision else ""
    return f"{SCHEME}{address.base_url}#{address.model}{mark}-{settings}"
