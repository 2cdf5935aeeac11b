"""A content system that loses nothing: agents research, write, edit and publish, for any topics.

_settings    how much at the same time, how often, how long; from arguments, environment or a file
_topics      topics as people write them, and when two of them are one
_system      one topic, or a batch of them, and a summary
_work        one topic: its questions, what they took, and what became of it
_sending     requests in time and in turn, until a stop; and what a failure means and says
_journal     every answer that was paid for, in SQLite or PostgreSQL; what a kill cannot undo
_publish     Markdown and HTML files, whole or not at all
"""

from agentlab.content._journal import Journal
from agentlab.content._settings import Settings
from agentlab.content._system import ContentSystem, summary
from agentlab.content._topics import read_topics
from agentlab.content._work import Content, Metrics

__all__ = ["Content", "ContentSystem", "Journal", "Metrics", "Settings", "read_topics", "summary"]
