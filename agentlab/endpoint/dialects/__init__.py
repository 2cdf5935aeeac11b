"""One conversation in the words of OpenAI's routes.

exchange            one request being answered, whole or as events
chat                chat completions
completions         completions, the older route
responses_request   what the responses route takes, and the chat that asks the same
responses           an answer of that route, whole or as events
stored              the responses that are kept, to be continued, read and deleted
embeddings          texts in, vectors out
"""
