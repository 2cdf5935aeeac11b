"""Around any model, local or real: limits, faults, times.

gate               limits and faults in front of a model
rate_limits        requests and tokens per minute
fault_plan         what goes wrong, and when
server_timing      what one lab tells another: its clock, and a request's times
"""
