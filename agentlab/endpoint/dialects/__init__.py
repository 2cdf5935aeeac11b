"""One conversation in the words of OpenAI's routes.

exchange     one request being answered, whole or as events
chat         chat completions
responses    responses, whole or as events
embeddings   texts in, vectors out
"""
