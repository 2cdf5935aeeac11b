"""Workflows and traces from and to the forms of others, where that can be done faithfully.

    langgraph   a graph of `AskStep` nodes -> a workflow
    script      a workflow -> a Python script that needs only LangGraph, or only CrewAI
    published   a published trace of real traffic -> arrivals, to be replayed
    otel        OTLP/JSON with OpenTelemetry's names for generative AI
    _rows       the rows of a file of requests, and their values, checked

What would change its meaning on the way is refused, and the error says what was met.
"""
