"""One conversation in the words of OpenAI's routes.

exchange     one request being answered, whole or as events
chat         chat completions
completions  completions, the older route
responses    responses, in and out
embeddings   texts in, vectors out
"""
