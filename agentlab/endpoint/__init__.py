"""The local model: an OpenAI-compatible endpoint whose time behaves as a real one's.

It imports settings, errors and `_support`, and no other room. These decide, and never wait:

presets      the figures of an endpoint, each with its source
physics      the formulas: prefill, inter-token latency, jitter
batch        slots, queue and the shared decode: what happens when
wire         what OpenAI's routes have in common: bodies, errors, events
request      a chat request, read and checked
chat         an answer in the words of chat completions
responses    the same as responses, in and out
embeddings   texts in, vectors out
tokens       a bundled token estimate
asked        what a prompt asks for: language, outline, shape, length
replies      what the model says: prepared answers, and who assembles others
schema       a value that a JSON Schema admits
tools        which tools the model calls, and with what arguments
react        tools that a prompt describes in words
turn         what it does on its turn: speaks, fills a form, calls tools
draws        randomness that is repeatable, in whatever order and process
answer       one request's answer, a function of seed, request and occurrence
events       what a stream tells while it passes
parameters   which parameter a refusal names, and the question without it
limits       requests and tokens per minute
faults       what goes wrong, and when

These wait, and decide nothing about time or words:

http         what the routes need of ASGI: bodies, answers, clients that hang up
live         a batch on an event loop's clock
exchange     one request being answered
gate         limits and faults in front of a model
tamper       answers that are spoiled on their way out
local        the local model: its routes
forward      a real model in its place, and its key hidden in what passes
times        what one lab tells another: its clock, and a request's times
recording    answers kept on disk, and given again
door         who may come in, and what they may see
app          the ASGI application around any of them, and how it is built
inprocess    the application without a socket, for virtual time
protocol     HTTP with bounds: bytes around a body, time to arrive
serve        the application over HTTP, in this process
process      the application in a process of its own, which ends with its owner
"""
