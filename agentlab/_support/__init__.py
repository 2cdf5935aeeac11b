"""What several rooms need, and no user touches.

asyncio_tools   which loop runs, where a task waits, cancellation from inside
blind_spots     what virtual time cannot see, and warns of
bucket          a token bucket's level: the endpoint's limits and the client's rate limit
extras          what to install where a package is missing
fields          data models, and numbers that are given: their checks, the wording of mistakes
patterns        regular expressions by name, from a YAML file
progress_bar    how far a long run is
schedule        which events of an instant are late, drawn from a seed
system          whole files, many sockets, processes that end with their owner
yaml_file       YAML by name or path, with the line and column of everything that is wrong
"""
