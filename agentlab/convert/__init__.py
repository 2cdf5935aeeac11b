"""Traces from and to the forms of others, where that can be done faithfully.

    published   the traces of others -> arrivals, to be replayed
    otel        OTLP/JSON with OpenTelemetry's names for generative AI
    _rows       the rows of a file of requests, and their values, checked

What would change its meaning on the way is refused, and the error says what was met.
"""
