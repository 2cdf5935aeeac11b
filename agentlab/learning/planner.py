"""A plan that a model wrote, read into functions that `parallel.run` can run.

One line per call, `$1 = search("rivers")`; other lines use `$1`, alone or inside a text. A plan is
data: it is parsed, never executed, and calls the given tools only.

Source: the form is that of S. Kim et al., "An LLM compiler for parallel function calling" (2024).
"""

import ast
import inspect
import re
from collections.abc import Mapping
from typing import Any

from agentlab._support.asyncio_tools import called
from agentlab.errors import ConfigError
from agentlab.learning.parallel import Function, with_parameters
from agentlab.workflow import listed

_LINE = re.compile(r"\$(\d+)\s*=\s*(.+)")
_MENTION = re.compile(r"\$(\d+)")
_TEXT_OR_MENTION = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|(\$\d+)')


def read(plan: str, tools: Mapping[str, Function]) -> list[Function]:
    """Return the plan's calls as functions `s1`, `s2` ..., whose parameters name what they need.

    Tools may be async or not. What makes no graph `parallel.run` refuses.

    Raises:
        ConfigError: If a line is no call, or no tool can be called like that.

    Example:
        >>> tools = {"search": lambda topic: topic, "join": lambda *texts: texts}
        >>> calls = read('$1 = search("tides")\\n$2 = join($1, "and ebb")', tools)
        >>> [(call.__name__, list(inspect.signature(call).parameters)) for call in calls]
        [('s1', []), ('s2', ['s1'])]
    """
    lines = [line.strip() for line in plan.splitlines()]
    return [_function(line, tools) for line in lines if line and not line.startswith("```")]


def _function(line: str, tools: Mapping[str, Function]) -> Function:
    number, code = match.groups() if (match := _LINE.fullmatch(line)) else ("", line)
    needs = dict.fromkeys(f"s{need}" for need in _MENTION.findall(code))
    # Once each mention is a text, all that a tool is given is literals.
    code = _TEXT_OR_MENTION.sub(lambda m: f"'{m[1]}'" if m[1] else m[0], code)
    try:
        call = ast.parse(code, mode="eval").body if number else None
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            raise SyntaxError("it is no call of a tool, such as $1 = tool(arguments)")
        if call.func.id not in tools:
            raise SyntaxError(f"{call.func.id!r} is no tool; there are {listed(tools)}")
        tool = tools[call.func.id]
        args = [ast.literal_eval(one) for one in call.args]
        named = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
        inspect.signature(tool).bind(*args, **named)
    except (SyntaxError, TypeError, ValueError) as error:
        what = "it is given what is no text, number, list, or $ and a number"
        what = what if isinstance(error, ValueError) else getattr(error, "msg", str(error))
        raise ConfigError(f"plan: in {line!r}: {what}; correct that line") from None

    async def function(**results: Any) -> Any:
        return await called(tool, *_filled(args, results), **_filled(named, results))

    return with_parameters(function, f"s{number}", needs)


def _filled(value: Any, results: Mapping[str, Any]) -> Any:
    """Return a value with results where it mentions them: alone as they are, in a text as text."""
    match value:
        case dict():
            return {name: _filled(one, results) for name, one in value.items()}
        case list():
            return [_filled(one, results) for one in value]
        case str() if whole := _MENTION.fullmatch(value):
            return results[f"s{whole[1]}"]
        case str():
            return _MENTION.sub(lambda m: str(results[f"s{m[1]}"]), value)
    return value
