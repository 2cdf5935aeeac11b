"""What several rooms need, and no user touches.

asyncio_tools   which loop runs, and cancellation from inside
blind_spots     what virtual time cannot see: warnings at the line
bucket          a token bucket's level: the endpoint's limits and the client's rate limit
extras          what to install where a package is missing
fields          data models: what fields may hold, and the wording of mistakes
numbers         numbers that are given are checked before they are used
progress_bar    how far a long run is
system          whole files, many sockets, processes that end with their owner
upstream        a real model's address and key, as the environment has them
yaml_file       YAML by name or path, with the line and column of everything that is wrong
"""
