"""ECA Lab: the helper package under the notebooks about Efficient Channel Attention (ECA).

Its front door: the names below, each of which is imported when it is first asked for. To import
eca_lab imports nothing heavy: kernel sizes need the standard library alone, training no widgets.
ARCHITECTURE.md tells what lies in which room.
"""

from importlib import import_module

_ROOMS = {
    "ECA": "attention.modules",
    "SE": "attention.modules",
    "make_attention": "attention.modules",
    "adaptive_kernel_size": "attention.kernel_size",
    "parse_spec": "attention.spec",
    "build_model": "networks.backbones",
    "fold": "networks.fold",
    "load_dataset": "data",
    "load_results": "evidence.results",
    "compare": "evidence.stats",
    "explore": "explorers.channel_weights",
    "Recipe": "recipe",
    "record_weights": "looking.probe",
    "intervene": "looking.probe",
    "attention_table": "looking.table",
    "rank_attention": "looking.ranking",
    "attach": "networks.attach",
    "detach": "networks.attach",
}
__all__ = list(_ROOMS)


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    found = getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    globals()[name] = found  # the next time it is there
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
