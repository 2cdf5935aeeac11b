"""A content system that loses nothing: agents research, write, edit and publish, for any topics."""

from agentlab.content._journal import Journal
from agentlab.content._search import search
from agentlab.content._settings import Settings
from agentlab.content._system import ContentSystem, summary
from agentlab.content._topics import read_topics
from agentlab.content._work import Content, Metrics

__all__ = ["Content", "ContentSystem", "Journal", "Metrics", "Settings", "read_topics"]
__all__ += ["search", "summary"]
