"""What a prompt is searched for: the patterns of `data/patterns/answers.yaml`, by their names."""

from agentlab._support.patterns import Patterns
from agentlab.settings import DATA

RE = Patterns(DATA / "patterns" / "answers.yaml")
