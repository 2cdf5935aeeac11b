"""One conversation in the words of OpenAI's routes.

chat                chat completions, and the older completions
responses_request   what the responses route takes, and the chat that asks the same
responses           an answer of that route, whole or as events; and those that are kept
embeddings          texts in, vectors out
"""
