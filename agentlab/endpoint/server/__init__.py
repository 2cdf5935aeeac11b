"""The application around a model, and what serves it.

app            the ASGI application: door, numbers, record; and how it is built
local_model    the local model's routes
inprocess      the application without a socket, for virtual time
serve          the application over HTTP, with bounds, in this process
process        the endpoint in a process of its own, which ends with its owner
_metrics       what load tools read of the record
_forward       a real model, its key hidden in what passes
"""
