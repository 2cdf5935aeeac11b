"""A content system that loses nothing: agents research, write, edit and publish, for any topics.

topics      topics as people write them, and when two of them are one
settings    how much at once, how often, how long; from arguments, environment or a file
questions   what a step asks, and what makes two questions the same
sending     requests in time and in turn, until a stop
system      one topic, or a batch of them, with what each took
failures    whether one topic has failed or every topic would, and in which words
place       where a journal is, whatever its spelling, and the right to write there
journal     every answer that was paid for, in SQLite or PostgreSQL; what a kill cannot undo
earlier     journals of an earlier version, which took any answer for one
publish     Markdown and HTML files, whole or not at all
"""

from agentlab.content.settings import Settings
from agentlab.content.system import Content, ContentSystem, Metrics

__all__ = ["Content", "ContentSystem", "Metrics", "Settings"]
