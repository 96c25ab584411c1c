"""Modalities: how raw things become tensors, one file each."""
