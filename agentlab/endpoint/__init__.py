"""The local model: an OpenAI-compatible endpoint whose time behaves as a real one's.

presets      the figures of an endpoint, each with its source
physics      the formulas: prefill, inter-token latency, jitter
batch        slots, queue and the shared decode: what happens when (decides, never waits)
live         a batch on an event loop's clock (waits)
tokens       a bundled token estimate
replies      what the model says
wire         OpenAI's shapes: requests in, answers and errors out
answer       one request's answer, a function of seed, request and occurrence
app          the ASGI application
forward      the same in front of a real model
inprocess    the application without a socket, for virtual time
process      the endpoint in a process of its own: start, stop, serve
"""
