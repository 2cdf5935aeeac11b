"""Workflows from and to the frameworks' own forms, where that can be done faithfully.

    langgraph   a graph of `AskStep` nodes -> a workflow; a workflow -> a script
    crewai      a crew -> a workflow; a workflow -> a script, as a Flow
    _script     how a script is written: texts as Python reads them, one main program for all

What would change its meaning on the way is refused, and the error says what was met. A workflow as
a native graph is `engines.langgraph.graph`, as a native Flow `engines.crewai.flow`.
"""
