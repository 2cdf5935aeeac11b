"""A plan that a model wrote, read into functions that `parallel.run` can run.

One line a call, `$1 = search("rivers")` or `1. search("rivers")`; other lines use `$1`, alone or
inside a text. A plan is data: it is parsed, never executed, and calls the given tools only.

Source: the form is that of S. Kim et al., "An LLM compiler for parallel function calling" (2024).
"""

import ast
import inspect
import re
from collections.abc import Mapping
from typing import Any

from agentlab.errors import ConfigError
from agentlab.learning.parallel import Function, with_parameters
from agentlab.workflow import listed

_LINE = re.compile(r"(?:\$(\d+)\s*=|(\d+)\.)\s*(.+)")
_MENTION = re.compile(r"\$(\d+)")
_TEXT_OR_MENTION = re.compile(r'("(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\')|\$(\d+)')


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
    lines = [line for line in lines if line and not line.startswith("```")]
    return [_function(line, tools) for line in lines]


def _function(line: str, tools: Mapping[str, Function]) -> Function:
    try:
        number, name, call = _parsed(line)
        if name not in tools:
            raise ValueError(f"{name!r} is no tool; there are {listed(tools)}")
        tool = tools[name]
        needs = [f"s{need}" for need in dict.fromkeys(_MENTION.findall(line.split("(", 1)[1]))]
        args, named = _arguments(call, dict.fromkeys(needs, ""))
        inspect.signature(tool).bind(*args, **named)
    except (SyntaxError, TypeError, ValueError) as error:
        what = error.msg if isinstance(error, SyntaxError) else error
        raise ConfigError(f"plan: in {line!r}: {what}; correct that line") from None

    async def function(**results: Any) -> Any:
        args, named = _arguments(call, results)
        result = tool(*args, **named)
        return await result if inspect.isawaitable(result) else result

    return with_parameters(function, f"s{number}", needs)


def _parsed(line: str) -> tuple[str, str, ast.Call]:
    if match := _LINE.fullmatch(line):
        code = _TEXT_OR_MENTION.sub(lambda m: m[1] or f"s{m[2]}", match[3])
        call = ast.parse(code, mode="eval").body
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            return match[1] or match[2], call.func.id, call
    raise ValueError("it is no call of a tool, such as $1 = tool(arguments)")


def _arguments(call: ast.Call, results: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    named = {str(keyword.arg): _value(keyword.value, results) for keyword in call.keywords}
    return [_value(argument, results) for argument in call.args], named


def _value(node: ast.expr, results: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name) and node.id in results:
        return results[node.id]
    if isinstance(node, ast.List):
        return [_value(item, results) for item in node.elts]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _MENTION.sub(lambda m: str(results[f"s{m[1]}"]), node.value)
    if isinstance(node, ast.Constant | ast.UnaryOp):
        return ast.literal_eval(node)
    raise ValueError(f"{ast.unparse(node)} is no text, number, list, or $ and a number")
