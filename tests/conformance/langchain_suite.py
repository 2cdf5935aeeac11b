"""LangChain's standard tests of a chat model, for ChatOpenAI in front of the endpoint.

They are run by `clients/langchain_tests.py` with the newest LangChain, and by
`tests/test_conformance.py` with the course's. What they fetch elsewhere is a stand-in here, and
so are the fixtures of plugins that test LangChain rather than the endpoint.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import httpx
import pytest
from langchain_openai import ChatOpenAI

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # marks of plugins that are not needed here
    from langchain_tests.integration_tests import ChatModelIntegrationTests
    from langchain_tests.unit_tests import ChatModelUnitTests

FETCHED = SimpleNamespace(content=b"a picture, a sound or a document")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
async def one_loop(anyio_backend: str) -> AsyncIterator[None]:
    """LangChain keeps its connections from test to test, so the event loop has to last."""
    yield


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "get", lambda url, **options: FETCHED)


@pytest.fixture
def benchmark() -> Callable[[Callable[[], object]], object]:
    """Call it once."""
    return lambda function: function()


@pytest.fixture
def snapshot() -> Callable[..., Any]:
    """How LangChain writes its own model down is not the endpoint's affair."""
    return lambda **options: ANY


@pytest.fixture
def vcr() -> None:
    """No cassette; the test that wants one skips itself."""


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore")
class _Able:
    """ChatOpenAI, with what an OpenAI model can take."""

    chat_model_class = ChatOpenAI
    supports_json_mode = True
    supports_image_inputs = True
    supports_image_urls = True
    supports_pdf_inputs = True
    supports_audio_inputs = True
    supports_anthropic_inputs = True
    supports_image_tool_message = True
    supports_pdf_tool_message = True
    supports_model_override = True
    model_override_value = "gpt-4o"


class TestChat(_Able, ChatModelIntegrationTests):
    chat_model_params = {"model": "gpt-4o-mini", "stream_usage": True}  # noqa: RUF012


class TestResponses(_Able, ChatModelIntegrationTests):
    chat_model_params = {"model": "gpt-4o-mini", "use_responses_api": True}  # noqa: RUF012


class TestUnit(_Able, ChatModelUnitTests):
    chat_model_params = {"model": "gpt-4o-mini"}  # noqa: RUF012
