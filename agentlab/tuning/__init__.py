"""Workflows that tune themselves: what a run has shown decides how the next one is run.

dags        random graphs, run along their true edges: makespan against critical path
"""
