"""What `ChatOpenAI` asks through: openai's `chat.completions`, with a short way for the plain call.

openai's client turns every request and every answer into typed objects, which `ChatOpenAI` turns
back into a dict: two thirds of what a call costs this machine. Here the request is openai's own,
byte for byte, because openai's client builds its address and headers and writes its body; only the
objects in between are left out, and a whole answer is read as a dict. Streams, retries, keys that
are fetched for each request, and whatever else the client can do go through the client.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import msgspec
import openai
from openai._models import FinalRequestOptions
from openai._utils._json import openapi_dumps
from openai.resources.chat.completions import AsyncCompletions

from agentlab.errors import EndpointError
from agentlab.lab.connection import Answer

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

# What a body holds, in the order in which openai's client writes it.
_FIELDS = dict(inspect.signature(AsyncCompletions.create).parameters)
for _name in ("self", "extra_headers", "extra_query", "extra_body", "timeout"):
    del _FIELDS[_name]

Post = Callable[..., Awaitable[Answer]]
"""Sends it: `agentlab.lab._transport.post`."""


def shorten(model: ChatOpenAI, post: Post, client: httpx.AsyncClient) -> ChatOpenAI:
    """Let a model's plain calls go the short way.

    A model that does not send through the lab's own HTTP `client` is left as it is, because only
    its own client knows what it adds to a request.
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
        self._client, self._post = client, post
        self._built: dict[bool, _Built] = {}

    @property
    def with_raw_response(self) -> SimpleNamespace:
        """openai's own has this, too: its `create` returns the answer before it is parsed."""
        return SimpleNamespace(create=partial(self.create, raw=True))

    async def create(self, *, raw: bool = False, **asked: Any) -> Any:
        """Ask; return the answer as a dict, or a stream as openai's client has it.

        Args:
            raw: Return the answer before it is parsed.

        Raises:
            openai.APIError: For whatever goes wrong: a status that is not a success
                (`openai.APIStatusError`), a time-out, a connection that breaks off.
        """
        client = self._client
        if (
            client.max_retries
            or client._api_key_provider
            or client.custom_auth
            or asked.get("stream")
            or not isinstance(asked.get("response_format", {}), dict)
            or not asked.keys() <= _FIELDS.keys()
        ):
            theirs: Any = client.chat.completions
            return await (theirs.with_raw_response if raw else theirs).create(**asked)
        answer = await self._send(asked, raw=raw)
        return answer if raw else answer.parse()

    async def _send(self, asked: dict[str, Any], *, raw: bool) -> _Unparsed:
        built, limit = self._request(raw), self._client.timeout
        body = openapi_dumps({name: asked[name] for name in _FIELDS if name in asked})
        try:
            answer = await self._post(
                built.url,
                body,
                {**built.headers, "content-length": str(len(body))},
                read_timeout_s=limit.read if isinstance(limit, httpx.Timeout) else limit,
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
        return _Unparsed(answer.headers, answer.content)

    def _request(self, raw: bool) -> _Built:
        """Return openai's own request, without its body; build it again if the client changed."""
        client = self._client
        state = (
            client.api_key, client.organization, client.project, client.base_url, client.timeout,
            dict(client._custom_headers), dict(client._custom_query),
        )  # fmt: skip
        if raw not in self._built or self._built[raw].state != state:
            options = FinalRequestOptions.construct(
                method="post",
                url="/chat/completions",
                json_data={},
                security={"bearer_auth": True},
                # What `with_raw_response` adds to a request.
                headers={"X-Stainless-Raw-Response": "true"} if raw else {},
            )
            request = client._build_request(options)
            del request.headers["content-length"]
            self._built[raw] = _Built(state, request, str(request.url), dict(request.headers))
        return self._built[raw]


class _Built(NamedTuple):
    state: tuple[Any, ...]
    request: httpx.Request
    url: str
    headers: dict[str, str]


class _Unparsed(NamedTuple):
    headers: Mapping[str, str]
    content: bytes

    def parse(self) -> Any:
        if "json" not in self.headers.get("content-type", ""):
            return self.content.decode(errors="replace")  # as openai's client does
        try:
            return msgspec.json.decode(self.content)
        except msgspec.DecodeError:
            return json.loads(self.content)  # raises the error that openai's client raises
