"""Tools that read the model's structure from its configuration and modules."""

from __future__ import annotations

from typing import Any

from introspect.model.causal_lm import CausalLM
from introspect.model.roles import Role, role_of
from introspect.model.structure import Structure, features, is_linear, named_tensors, norm_eps, read_structure
from introspect.tools.context import ToolContext, left_out
from introspect.tools.domains import ModuleName
from introspect.tools.instruments.names import matching, module_names, resolve_module


def get_architecture_summary(context: ToolContext) -> dict[str, Any]:
    """Sizes and counts of the whole model."""
    structure = read_structure(context.model)
    return {
        "model_type": structure.model_type,
        "layers": structure.layers,
        "hidden_size": structure.hidden_size,
        "attention_heads": structure.attention_heads,
        "kv_heads": structure.kv_heads,
        "head_dim": structure.head_dim,
        "mlp_size": structure.mlp_size,
        "vocabulary": structure.vocabulary,
        "parameters": structure.parameters,
        "tensors": structure.tensors,
        "tied_embeddings": structure.tied_embeddings,
        "modules": structure.modules,
    }


def get_layer_names(context: ToolContext, filter_pattern: str = "*", start: int = 0) -> dict[str, Any]:
    """Names of the model's layers.

    Args:
        filter_pattern: which names; * stands for any characters
        start: how many matching names to skip
    """
    found = matching(filter_pattern, module_names(context.model))
    start = max(0, start)
    rest = found[start:]

    def page(shown: int) -> dict[str, Any]:
        result: dict[str, Any] = {"matching": len(found), "shown": shown, "names": rest[:shown]}
        return result | left_out(len(rest) - shown, next_start=start + shown)

    return context.fit_page(page, len(rest))


def get_layer_info(context: ToolContext, layer_name: ModuleName) -> dict[str, Any]:
    """Class, sizes, tensors and parts of one layer.

    Args:
        layer_name: a name that get_layer_names lists
    """
    model = context.model
    name = resolve_module(model, layer_name)
    module, role = model.get_submodule(name), role_of(model, name)
    tensors = _own_tensors(model, name)
    inside = [
        {"name": child, "class": type(part).__name__, "parameters": sum(p.numel() for p in part.parameters())}
        for child, part in module.named_children()
    ]
    every = list(module.parameters())
    head: dict[str, Any] = {
        "layer": name,
        "class": type(module).__name__,
        "kind": role.kind,
        **({"layer_number": role.layer} if role.layer is not None else {}),
        "parameters": sum(p.numel() for p in every),
        "dtype": "/".join(sorted({str(p.dtype).removeprefix("torch.") for p in every})),
        **_sizes(read_structure(model), role, module),
    }

    def page(shown: int) -> dict[str, Any]:
        """The module's own tensors first, then its parts."""
        result = head | {"tensors": tensors[:shown]} if tensors else dict(head)
        parts = inside[: max(0, shown - len(tensors))]
        result |= {"inside": parts} if inside else {}
        left = len(tensors) + len(inside) - shown
        return result | left_out(left, f"get_layer_names('{name}.*') lists the parts")

    return context.fit_page(page, len(tensors) + len(inside))


def _own_tensors(model: CausalLM, name: str) -> list[dict[str, Any]]:
    """Name and shape of each tensor of the module itself, and under what other names it stands."""
    own = model.get_submodule(name).named_parameters(recurse=False, remove_duplicate=False)
    names = {known: all_names for _, all_names in named_tensors(model) for known in all_names}
    rows = []
    for key, tensor in own:
        others = [known for known in names[f"{name}.{key}"] if known != f"{name}.{key}"]
        row: dict[str, Any] = {"name": key, "shape": list(tensor.shape)}
        rows.append(row | ({"also_called": others} if others else {}))
    return rows


def _sizes(structure: Structure, role: Role, module: Any) -> dict[str, Any]:
    """The sizes that belong to a kind of module."""
    if role.kind == "attention":
        return {
            "attention_heads": structure.attention_heads,
            "kv_heads": structure.kv_heads,
            "head_dim": structure.head_dim,
        }
    if role.kind == "mlp":
        return {"mlp_size": structure.mlp_size, "activation": structure.activation}
    if role.kind in ("norm", "final norm"):
        return {"takes": module.weight.numel(), "eps": norm_eps(module)}
    if is_linear(module):
        taken, given = features(module)
        return {"takes": taken, "gives": given}
    return {}
