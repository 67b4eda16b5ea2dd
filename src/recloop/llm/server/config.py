"""Settings of a language model behind an OpenAI-compatible server, and its address."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, model_validator

from recloop.errors import SettingError
from recloop.llm.server.redaction import KINDS, REGIONS, Kind
from recloop.settings import setting

SCHEME, WEIGHTS_SCHEME = "openai:", "transformers:"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OWN_FIELDS = frozenset({"model", "messages", "n", "seed", "stream", "stream_options", "temperature", "top_p"})
LATER_FIELDS = ("omit", "query", "reasoning_marks")  # in the name where they are set: older caches stay good
MAX_SHOWN = 30
FROM_ENVIRONMENT = "env:"
SECRET_NAME = re.compile(r"auth|key|token|secret|cookie|sig|pass", re.IGNORECASE)
VARIABLE = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
MARK = re.compile(r"\S.*?\.\.\..*\S")
UNDECIDING = {
    "revision",
    "weights",
    "trained_name",
    "stream",
}  # in the name by themselves, or of no effect on an answer


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
    omit: tuple[Literal["temperature", "top_p"], ...] = setting(
        (), "fields left out of requests, for a server that refuses them; it then uses values of its own"
    )
    stream: bool = setting(False, "ask for a stream, for a server that answers in no other way")
    query: dict[str, str] = setting({}, 'what follows the address: {"api-version": "..."}; a key as env:VARIABLE')
    reasoning_marks: tuple[str, ...] = setting(
        (), "how the model marks its reasoning, where recloop does not know it, as BEGIN...END: <plan>...</plan>"
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
        for mark in self.reasoning_marks:
            if not MARK.fullmatch(mark):
                raise SettingError(f"lm.server.reasoning_marks must be BEGIN...END, got {mark!r}; as <plan>...</plan>")
        _require_no_secret("lm.server.query", self.query)
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

    @property
    def marks(self) -> tuple[tuple[str, str], ...]:
        """Begin and end of each of `reasoning_marks`."""
        found = [mark.partition("...") for mark in self.reasoning_marks]
        return tuple((begin, end) for begin, _, end in found)


class PaceConfig(BaseModel, frozen=True, extra="forbid"):
    """How fast, how patiently and with which key a server is asked; may change while a run is stopped."""

    api_key_env: str = setting(
        "", "name of the environment variable that holds the key; empty: none is sent", max_length=200
    )
    headers: dict[str, str] = setting({}, 'more headers, as JSON; a key as env:VARIABLE: {"api-key": "env:AZURE_KEY"}')
    allowed_hosts: tuple[str, ...] = setting(
        LOOPBACK, "hosts prompts may be sent to; name yours to send them off this machine"
    )
    max_concurrency: int = setting(64, "most requests open at once", ge=1, le=1024)
    requests_per_min: float | None = setting(None, "none: as fast as it answers", gt=0)
    tokens_per_min: float | None = setting(None, "read and written; none: no limit", gt=0)
    timeout_s: float = setting(120.0, "longest wait for one whole answer", gt=0)
    max_outage_s: float = setting(300.0, "without any answer so long, the run stops; resume goes on", gt=0)

    @model_validator(mode="after")
    def _check_secrets(self) -> PaceConfig:
        if self.api_key_env and not VARIABLE.fullmatch(self.api_key_env):
            raise SettingError(
                "lm.pace.api_key_env must be the name of an environment variable, got something else (not shown, since "
                "it may be the key); export the key and give the variable's name"
            )
        for name, value in self.headers.items():
            if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII) or not (
                value.isascii() and value.isprintable()
            ):
                raise SettingError(f"lm.pace.headers must be plain ASCII on one line, got another {name!r}; correct it")
        _require_no_secret("lm.pace.headers", self.headers)
        return self


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
            f"a base URL may not carry a user, password or query, got one for {parts.hostname}; put a key into an "
            f"environment variable and its name into lm.pace.api_key_env, and the query into lm.server.query"
        )
    return ServerAddress(base_url.rstrip("/"), model)


def check_host(address: ServerAddress, pace: PaceConfig) -> None:
    """SettingError when prompts or a key would go where they may not."""
    if address.host not in pace.allowed_hosts:
        raise SettingError(
            f"prompts may be sent to {', '.join(pace.allowed_hosts) or 'no host'}, got {address.host}; "
            f"if they may leave this machine for it, add it to lm.pace.allowed_hosts"
        )
    has_secret = pace.api_key_env or any(value.startswith(FROM_ENVIRONMENT) for value in pace.headers.values())
    if has_secret and address.base_url.startswith("http:") and not address.is_loopback:
        raise SettingError(
            f"a key may not travel unencrypted, got {address.base_url} with one under lm.pace; "
            f"use https, or leave the key out"
        )


def read_key(pace: PaceConfig) -> str | None:
    """The key from the environment; None when none is wanted, SettingError when it is absent or cannot be sent."""
    return read_variable(pace.api_key_env, "lm.pace.api_key_env") if pace.api_key_env else None


def read_variable(variable: str, setting_name: str) -> str:
    """A secret from the environment. Neither it nor a part of it stands in an error.

    Raises:
        SettingError: there is none, or it has spaces, line breaks or other than ASCII, which no header may have.
    """
    secret = os.environ.get(variable, "").strip()
    shown = variable if len(variable) <= MAX_SHOWN else "a variable"  # a longer name may be the key
    if not secret:
        raise SettingError(f"{setting_name} names {shown}, got no such environment variable; export it")
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise SettingError(
            f"{shown} ({setting_name}) must be one word of plain ASCII, got {len(secret)} characters with spaces, "
            f"line breaks or others; export the key alone"
        )
    return secret


def with_secrets(values: Mapping[str, str], setting_name: str) -> tuple[dict[str, str], list[str]]:
    """The values with each ``env:VARIABLE`` replaced by what the environment holds; and what was so read."""
    secrets = {
        name: read_variable(value.removeprefix(FROM_ENVIRONMENT), f"{setting_name}.{name}")
        for name, value in values.items()
        if value.startswith(FROM_ENVIRONMENT)
    }
    return {**values, **secrets}, list(secrets.values())


def _require_no_secret(setting_name: str, values: Mapping[str, str]) -> None:
    """SettingError where a value seems to be a secret itself: a run's folder would hold it."""
    for name, value in values.items():
        if SECRET_NAME.search(name) and not value.startswith(FROM_ENVIRONMENT):
            raise SettingError(
                f"{setting_name} may hold no secret, got one for {name}; export it and write env:VARIABLE in its place"
            )


def server_identity(address: ServerAddress, config: ServerConfig, revision: str) -> str:
    """A language model's name: where it is, which one, and a hash of the settings that decide its answers."""
    unset = {name for name in LATER_FIELDS if getattr(config, name) == type(config).model_fields[name].default}
    deciding = config.model_dump(mode="json", exclude=UNDECIDING | unset)
    settings = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:8]
    mark = f"@{revision}" if revision else ""
    return f"{SCHEME}{address.base_url}#{address.model}{mark}-{settings}"
