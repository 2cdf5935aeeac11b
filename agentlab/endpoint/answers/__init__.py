"""What the model says: a function of seed, request and occurrence.

answer     one request's answer: words, a filled form, or tool calls
replies    prepared answers, and sentences from which others are assembled
_prompt    what a prompt asks for: language, outline, form, length
_patterns  what a prompt is searched for
_form      forms that a text asks for instead of prose: JSON, tables, tags
_schema    a value that a JSON Schema admits
_tools     the conversation so far, and the calls of this turn with their arguments
_rounds    which tools a task names, and which of their calls are due
_things    what a text names: things, ids and numbers
_react     tools that a prompt describes in words, called in lines or in code
"""
