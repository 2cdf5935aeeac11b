"""What `ChatOpenAI` asks through: openai's `chat.completions`, with a short way for the plain call.

openai's client turns every request and every answer into typed objects, which `ChatOpenAI` turns
back into a dict: a third of what a call costs this machine. Here a whole answer is sent for and
read as a dict. Streams, retries, and whatever else the client can do go through the client.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import msgspec
import openai

from agentlab.errors import EndpointError
from agentlab.wire import Answer

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

_LONG_WAY = ("stream", "extra_headers", "extra_query", "extra_body", "timeout")

Post = Callable[..., Awaitable[Answer]]
"""Sends it: `LabTransport.post`."""


def shorten(model: ChatOpenAI, post: Post) -> ChatOpenAI:
    """The same model, with its plain calls going the short way; those that retry do not."""
    model.async_client = ShortCompletions(model.root_async_client, post)
    return model


class ShortCompletions:
    """In the place of openai's `AsyncCompletions`; raises what it would raise.

    Args:
        client: Whose address, key, headers, time-out and errors are used.
    """

    def __init__(self, client: openai.AsyncOpenAI, post: Post):
        self._client = client
        self._post = post
        self._url = f"{str(client.base_url).rstrip('/')}/chat/completions"
        headers = client.default_headers.items()  # the key is among them
        self._headers = {name: value for name, value in headers if isinstance(value, str)}

    @property
    def with_raw_response(self) -> _Raw:
        """As openai's: its `create` returns the answer before it is parsed."""
        return _Raw(self)

    async def create(self, **asked: Any) -> Any:
        """The answer to a request, as a dict; a stream as openai's client has it."""
        return (await self.create_raw(asked)).parse()

    async def create_raw(self, asked: dict[str, Any]) -> Any:
        """The answer before it is parsed.

        Raises:
            openai.APIError: For whatever goes wrong: a status that is no success
                (`openai.APIStatusError`), a time-out, a connection that breaks off.
        """
        if self._client.max_retries or any(asked.get(name) for name in _LONG_WAY):
            return await self._client.chat.completions.with_raw_response.create(**asked)
        try:
            answer = await self._post(
                self._url,
                msgspec.json.encode({k: v for k, v in asked.items() if k not in _LONG_WAY}),
                self._headers,
                read_timeout_s=_read_s(self._client.timeout),
            )
        except TimeoutError as error:
            raise openai.APITimeoutError(self._request()) from error
        except EndpointError as error:
            raise openai.APIConnectionError(request=self._request()) from error
        if answer.status >= 400:
            raise self._client._make_status_error_from_response(
                httpx.Response(
                    answer.status,
                    headers=list(answer.headers.items()),
                    content=answer.content,
                    request=self._request(),
                )
            )
        return _Unparsed(answer)

    def _request(self) -> httpx.Request:
        return httpx.Request("POST", self._url)


class _Raw(NamedTuple):
    completions: ShortCompletions

    async def create(self, **asked: Any) -> Any:
        return await self.completions.create_raw(asked)


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
