"""A class on one endpoint: everybody's name is a key, everybody gets a fair share.

_door      names and token as keys, the class list, addresses, who sees which trace
_fair      whose turn it is for a slot, and a rate limit divided; it decides, and never waits
_room      the model behind the door, what the teacher may change, the numbers on the projector
app        the ASGI application around them, the page for the projector, and how it is served
"""
