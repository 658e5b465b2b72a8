"""Decoders: one file each, whose function of the same name completes an encoder to dense predictions.

A decoder knows its encoder by `pyramid_outputs` and the final output alone.
"""
