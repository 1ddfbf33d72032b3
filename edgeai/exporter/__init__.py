"""What runs in a child process of a build, where torch, transformers and optimum are: the only room that imports them.

`edgeai.build.optimum_export` starts a child, hands it a request as JSON and reads its answer. Nothing else of edgeai
imports this room, and it imports nothing of edgeai but errors.
"""
