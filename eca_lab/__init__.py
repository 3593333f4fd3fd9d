"""ECA Lab: the helper package under the notebooks about Efficient Channel Attention (ECA).

Nothing is imported here on purpose: ``eca_lab.kernel_size`` needs only the standard library, and
training needs no widgets. Import the module that you want::

    from eca_lab.kernel_size import adaptive_kernel_size
    from eca_lab.models import build_model
"""
