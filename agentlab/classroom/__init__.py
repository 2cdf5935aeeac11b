"""A class on one endpoint: everybody's name is a key, everybody gets a fair share.

These decide, and never wait:

_roster     who is who: names, places, the class list
_fair      fair shares: whose turn it is for a slot, a rate limit divided among those who ask
_board     the numbers on the projector

These wait, or speak HTTP:

_door      names and token as keys, addresses, who sees which trace
_room      the model behind the door, and what the teacher may change while the class runs
_app       the ASGI application around them, the page for the projector, the lines that join it
start      what `agentlab serve --classroom` does
"""
