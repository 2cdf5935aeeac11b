"""Workflows from and to the frameworks' own forms, where that can be done faithfully.

    langgraph   a graph of `AskStep` nodes -> a workflow
    script      a workflow -> a Python script that needs only LangGraph, or only CrewAI

What would change its meaning on the way is refused, and the error says what was met.
"""
