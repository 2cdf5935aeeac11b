"""What a prompt is searched for: patterns and sets of words of `data/patterns/answers.yaml`."""

from agentlab._support.patterns import Patterns
from agentlab.settings import DATA

RE = Patterns(DATA / "patterns" / "answers.yaml")
SETS = {name: frozenset(words.split()) for name, words in RE.mapping("sets").items()}
