"""When things happen: pure arithmetic in whole nanoseconds, and one file that waits.

formulas   prefill, inter-token latency, jitter
batch      slots, queue and the shared decode: what happens when
live       a batch on an event loop's clock
"""
