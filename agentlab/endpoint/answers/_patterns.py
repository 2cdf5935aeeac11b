"""What a prompt is searched for: patterns and sets of words of `data/patterns/answers.yaml`."""

from agentlab._support import DATA
from agentlab._support.patterns import Patterns

RE = Patterns(DATA / "patterns" / "answers.yaml")
SETS = {name: frozenset(words.split()) for name, words in RE.mapping("sets").items()}
