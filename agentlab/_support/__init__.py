"""What several rooms need, and no user touches.

bucket       a token bucket's level: the endpoint's limits and the client's pace
numbers      numbers that are given are checked before they are used
owned        a process that ends with its owner, however that one ends
tables       Markdown tables, and percentiles
"""
