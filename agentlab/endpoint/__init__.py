"""The local model: an OpenAI-compatible endpoint whose time behaves as a real one's.

These decide, and never wait:

presets      the figures of an endpoint, each with its source
physics      the formulas: prefill, inter-token latency, jitter
batch        slots, queue and the shared decode: what happens when
wire         OpenAI's JSON: bodies, errors, events, and which parameter an error refuses
request      a chat request, read and checked
chat         an answer in the words of chat completions
responses    the same as responses, in and out
embeddings   texts in, vectors out
json_schema  whether a schema is one, and whether a value fits it
tokens       a bundled token estimate
asked        what a prompt asks for: language, outline, shape, length
replies      what the model says: prepared answers, and who assembles others
schema       a value that a JSON Schema admits
tools        which tools the model calls, offered or described in words, and with what arguments
draws        randomness that repeats, in whatever order and process
answer       what the model says or calls on its turn: a function of seed, request, occurrence
events       what a stream tells while it passes
limits       requests and tokens a minute
faults       what goes wrong, and when

These wait, and decide nothing about time or words:

http         what the routes need of ASGI: bodies, answers, clients that hang up
live         a batch on an event loop's clock
exchange     one request being answered
gate         limits and faults in front of a model
tamper       answers that are spoiled on their way out
local        the local model: its routes
forward      a real model in its place
secret       its key, hidden in what passes
another      whether what is forwarded to is another lab's, and free
times        what one lab tells another that is in front of it
recording    answers kept on disk, and given again
door         who may come in, and what they may see
app          the ASGI application around either: door, numbers, record
inprocess    the application without a socket, for virtual time
protocol     HTTP with bounds: bytes around a body, time to arrive
serve        the application over HTTP, in this process
process      the same in a process of its own, which ends with its owner
"""
