"""What the model says: a function of seed, request and occurrence.

answer     one request's answer: words, a filled form, or tool calls
replies    prepared answers, and sentences from which others are assembled
_prompt    what a prompt asks for: language, outline, form, length
_form      forms that a text asks for instead of prose: JSON, tables, tags
_schema    a value that a JSON Schema admits
_tools     which of the tools offered the model calls, and with what arguments
_react     tools that a prompt describes in words, called in lines or in code
"""
