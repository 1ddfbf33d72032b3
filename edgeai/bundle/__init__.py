"""Bundles: one signed file that holds named files, cut into chunks, to carry models and systems about.

    8 bytes   EDGEAIB1
    4 bytes   length of the manifest, little endian
    4 bytes   number of signatures
    96 bytes  for each: the public key (Ed25519, 32 bytes) and its signature (64) over CONTEXT and the manifest
    ...       the manifest: canonical JSON, with the digest (sha256), size and chunks of every file
    ...       every chunk once, in the order in which the files need them first

All that follows the manifest is known by it: where each chunk is, and what it has to be. So a reader fetches what it
lacks and no more, from a file or over HTTP, in any order, and believes nothing that it has not compared.
"""
