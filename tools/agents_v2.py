"""Write a workflow of sessions of agents with tools, such as data/workflows/agents-v2.yaml.

    python tools/agents_v2.py [--sessions 20] [--fan-out 8] [--seed 1] > mine.yaml

Each session is a writer and one to `--fan-out` helpers, in an order that the seed draws. A helper
searches for two things, then reads two pages, then checks both: four turns, and two calls of tools
in each but the last. The writer answers from what its helpers have found. All have one system
prompt, so all prompts have one beginning; sessions need nothing of each other. An experiment that
names the file says how long `search`, `read_page` and `check` take.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator

SYSTEM = """\
You work in a team that describes the rivers of the world for travellers who have never seen them.
Look up whatever you do not know for certain, with the tools that you are given, and look up two
things in the same turn where neither needs the other. Never invent a source, a length or a name. If
a tool fails, or finds nothing, say so, and go on with what you have. Whoever reads your answer has
no other source, so repeat what the tools have found in full, in the order in which it was found,
before you draw any conclusion from it. Write plain English: short sentences, each with a subject
and a verb. Give lengths in kilometres, heights in metres and dates in full. Do not greet the
reader, do not describe what you are about to do, and do not apologise. Leave out whatever was not
asked for. Say who owns what you quote. When others hand their findings to you, answer from these
alone, name what contradicts what, and tell the reader which of the findings you trust more, and
why.
"""
TOOLS = ("search", "read_page", "check")


def lines(sessions: int, fan_out: int, seed: int) -> Iterator[str]:
    """Yield the lines of the file; the same numbers give the same lines."""
    draw = random.Random(seed)
    yield "# yaml-language-server: $schema=schema.json"
    given = f"--sessions {sessions} --fan-out {fan_out} --seed {seed}"
    yield f"# Written by tools/agents_v2.py {given}"
    yield f"about: {sessions} sessions, each of a writer and 1 to {fan_out} helpers with tools."
    yield "steps:"
    system = "&team |-\n" + "".join(f"      {line}\n" for line in SYSTEM.splitlines())
    sizes = [1 + number % fan_out for number in range(sessions)]
    draw.shuffle(sizes)
    for session, size in enumerate(sizes, 1):
        helpers = [f"helper_{session}_{number}" for number in range(1, size + 1)]
        for number, name in enumerate(helpers, 1):
            both = f"'source {number} of river {session}' and 'mouth {number} of river {session}'"
            yield f"  - name: {name}"
            yield f"    prompt: Call {', then '.join(f'{tool} {both}' for tool in TOOLS)}."
            yield f"    system: {system}".rstrip("\n")
            yield f"    tools: [{', '.join(TOOLS)}]"
            system = "*team"
        yield f"  - name: writer_{session}"
        yield "    prompt: |-"
        yield f"      Describe river {session} in ten paragraphs, from this:"
        yield from (f"      {{{name}}}" for name in helpers)
        yield "    system: *team"
        yield f"    max_tokens: {draw.choice([60, 120, 240])}"


def main() -> None:
    """Print the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for option, usual in {"--sessions": 20, "--fan-out": 8, "--seed": 1}.items():
        parser.add_argument(option, type=int, default=usual)
    given = parser.parse_args()
    if min(given.sessions, given.fan_out) < 1:
        parser.error("give 1 session and 1 helper at least")
    print(*lines(given.sessions, given.fan_out, given.seed), sep="\n")


if __name__ == "__main__":
    main()
