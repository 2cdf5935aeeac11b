"""What `ChatOpenAI` asks through: openai's `chat.completions`, with a short way for the plain call.

openai's client turns every request and every answer into typed objects, which `ChatOpenAI` turns
back into a dict: two thirds of what a call costs this machine. Here the request is openai's own,
byte for byte, because openai's client builds its address and headers and writes its body; only the
objects in between are left out, and a whole answer is read as a dict. Streams, retries, keys that
are fetched anew for each request, and whatever else the client can do go through the client.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import msgspec
import openai
from openai._models import FinalRequestOptions
from openai._utils._json import openapi_dumps
from openai.resources.chat.completions import AsyncCompletions

from agentlab.errors import EndpointError
from agentlab.wire import Answer

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

_LONG_WAY = frozenset({"self", "extra_headers", "extra_query", "extra_body", "timeout"})
# In the order in which openai's client writes them into a body.
_FIELDS = [
    name for name in inspect.signature(AsyncCompletions.create).parameters if name not in _LONG_WAY
]
_RAW = {"X-Stainless-Raw-Response": "true"}  # what `with_raw_response` adds to a request

Post = Callable[..., Awaitable[Answer]]
"""Sends it: `LabTransport.post`."""


def shorten(model: ChatOpenAI, post: Post, client: httpx.AsyncClient) -> ChatOpenAI:
    """Let a model's plain calls go the short way.

    A model that does not send through the lab's own HTTP `client` is left as it is, because what
    its own client adds to a request, nobody else knows.
    """
    root = model.root_async_client
    if type(root) is openai.AsyncOpenAI and root._client is client:
        model.async_client = ShortCompletions(root, post)
    return model


class ShortCompletions:
    """Stand in for openai's `AsyncCompletions`: send what it sends, raise what it raises.

    Args:
        client: Whose address, key, headers, time-out and errors are used.
    """

    def __init__(self, client: openai.AsyncOpenAI, post: Post):
        self._client = client
        self._post = post
        self._built: dict[bool, _Built] = {}

    @property
    def with_raw_response(self) -> _Raw:
        """As openai's: its `create` returns the answer before it is parsed."""
        return _Raw(self)

    async def create(self, **asked: Any) -> Any:
        """Ask; return the answer as a dict, or a stream as openai's client has it."""
        if self._is_plain(asked):
            return (await self._send(asked, raw=False)).parse()
        return await self._client.chat.completions.create(**asked)

    async def create_raw(self, **asked: Any) -> Any:
        """Ask; return the answer before it is parsed.

        Raises:
            openai.APIError: For whatever goes wrong: a status that is no success
                (`openai.APIStatusError`), a time-out, a connection that breaks off.
        """
        if self._is_plain(asked):
            return await self._send(asked, raw=True)
        return await self._client.chat.completions.with_raw_response.create(**asked)

    def _is_plain(self, asked: dict[str, Any]) -> bool:
        client = self._client
        return (
            not (client.max_retries or client._api_key_provider or client.custom_auth)
            and asked.keys() <= _PLAIN
            and not asked.get("stream")
            and isinstance(asked.get("response_format", {}), dict)
        )

    async def _send(self, asked: dict[str, Any], *, raw: bool) -> _Unparsed:
        built = self._request(raw)
        body = openapi_dumps({name: asked[name] for name in _FIELDS if name in asked})
        try:
            answer = await self._post(
                built.url,
                body,
                {**built.headers, "content-length": str(len(body))},
                read_timeout_s=_read_s(self._client.timeout),
            )
        except TimeoutError as error:
            raise openai.APITimeoutError(built.request) from error
        except EndpointError as error:
            raise openai.APIConnectionError(request=built.request) from error
        if not 200 <= answer.status < 300:
            raise self._client._make_status_error_from_response(
                httpx.Response(
                    answer.status,
                    headers=list(answer.headers.items()),
                    content=answer.content,
                    request=built.request,
                )
            )
        return _Unparsed(answer)

    def _request(self, raw: bool) -> _Built:
        """openai's own request, without its body; built again where the client was changed."""
        client = self._client
        state = (
            client.api_key,
            client.organization,
            client.project,
            client.base_url,
            client.timeout,
            client._custom_headers,
            client._custom_query,
        )
        built = self._built.get(raw)
        if built is None or built.state != state:
            options = FinalRequestOptions.construct(
                method="post",
                url="/chat/completions",
                json_data={},
                security={"bearer_auth": True},
                headers=_RAW if raw else {},
            )
            request = client._build_request(options)
            del request.headers["content-length"]
            kept = (*state[:-2], dict(client._custom_headers), dict(client._custom_query))
            built = _Built(kept, request, str(request.url), dict(request.headers))
            self._built[raw] = built
        return built


class _Built(NamedTuple):
    state: tuple[Any, ...]
    request: httpx.Request
    url: str
    headers: dict[str, str]


_PLAIN = frozenset(_FIELDS)


class _Raw(NamedTuple):
    completions: ShortCompletions

    async def create(self, **asked: Any) -> Any:
        return await self.completions.create_raw(**asked)


class _Unparsed(NamedTuple):
    answer: Answer

    @property
    def headers(self) -> Mapping[str, str]:
        return self.answer.headers

    def parse(self) -> Any:
        if "json" not in self.answer.headers.get("content-type", ""):
            return self.answer.content.decode(errors="replace")  # as openai's client does
        try:
            return msgspec.json.decode(self.answer.content)
        except msgspec.DecodeError:
            return json.loads(self.answer.content)  # raises the error that openai's client raises


def _read_s(timeout: float | httpx.Timeout | None) -> float | None:
    return timeout.read if isinstance(timeout, httpx.Timeout) else timeout
