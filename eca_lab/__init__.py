"""ECA Lab: the helper package under the notebooks about Efficient Channel Attention (ECA).

Nothing is imported here: ``kernel_size`` needs only the standard library, training no widgets.
"""
