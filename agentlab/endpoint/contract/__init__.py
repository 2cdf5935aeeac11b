"""What goes over the wire, read and checked; nothing here waits but `asgi`.

openai_json     OpenAI's JSON: bodies, events, and what is said of a wrong request
refused         which parameters an error refuses, and the question without them
request         a chat request, read and checked
json_schema     whether a schema is one, and whether a value fits it, within a budget
tokens          a bundled estimate of tokens
record          what the endpoint saw of each request
seeded_random   randomness that repeats, in whatever order and process
asgi            what the routes need of ASGI: bodies, answers, clients that hang up
"""
