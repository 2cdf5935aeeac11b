"""Traces from and to the forms of others, where that can be done faithfully.

What would change its meaning on the way is refused, and the error says what was met.
"""
