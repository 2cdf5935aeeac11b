"""A class on one endpoint: everybody's name is a key, everybody gets a fair share.

These decide, and never wait:

names      what can be a learner's name, and which look alike
roster     who is who: places, the class list
fair       whose turn it is: a queue by service had so far; how fair that was
guesses    how long an address waits that has shown wrong tokens
shares     a rate limit divided among the learners who ask
controls   what the teacher may change while the class runs
board      the numbers on the projector
joining    what a learner types to join

These wait, or speak HTTP:

door       names and token as keys, addresses, who sees which trace
room       the model behind the door, which the teacher changes without dropping anybody
app        the ASGI application around them, and the page for the projector
start      what `agentlab serve --classroom` does
"""
