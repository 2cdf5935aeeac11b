"""What the model says: a function of seed, request and occurrence.

answer     one request's answer: words, a filled form, or tool calls
replies    prepared answers, and sentences from which others are assembled
_prompt    what a prompt asks for: language, outline, shape, length
_schema    a value that a JSON Schema admits
_tools     which of the tools offered the model calls, and with what arguments
_react     tools that a prompt describes in words, called in lines
"""
