"""Embedding models and rerankers to packages: exported through optimum, fused, quantized to int8, measured."""
