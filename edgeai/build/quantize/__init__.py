"""Rounding float matrices to grids of 4 and 8 bits.

grid          grids, and the scales of least squared error
rounding      round-to-nearest as GGUF's formats do it: the plain oracle
compensate    error compensation for one matrix: GPTQ, scales fitted again, coordinate descent
sequential    the same for a whole model, while it reads calibration text
calibration   that text
groups        which matrices share a grid
sensitivity   what rounding each group costs
allocation    which groups get eight bits
scratch       results on disk until they are written
scheme        all of it together, from a plan to tensors
"""
