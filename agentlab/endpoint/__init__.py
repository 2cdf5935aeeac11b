"""The local model: an OpenAI-compatible endpoint whose time behaves as a real one's.

Contract: wire (bodies, errors, events), request, http (bodies, answers, clients that hang up),
    tokens (a bundled estimate), draws (randomness that is repeatable), parameters (those that a
    refusal names), events (what a stream tells while it passes), record (what the endpoint saw of
    each request)
Physics: physics (the formulas), batch (slots, queue and the shared decode), live (a batch on an
    event loop's clock), presets (an endpoint's figures, each with its source)
Answers: asked (what a prompt asks for), replies (what the model says), schema (a value that a JSON
    Schema admits), tools, react (tools that a prompt describes), turn, answer (a function of seed,
    request and occurrence)
Dialects: chat, responses, embeddings, exchange (one request being answered)
Before a model: gate, limits (requests and tokens per minute), faults (what goes wrong, and when),
    tamper (spoiled answers), recording (answers kept, and given again), times (what one lab tells
    another: its clock, and a request's times)
Server: door (who may come in), app (the application around a model, and how it is built), local,
    forward (a real model, its key hidden), inprocess (without a socket, for virtual time), protocol
    (HTTP with bounds), serve (over HTTP, in this process), process (in a process of its own)

Only http, live, exchange and what stands in the last two groups wait; all others decide, and never
wait. The endpoint imports settings, errors and `_support`, and no other room.
"""
