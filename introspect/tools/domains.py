"""Arguments that are one of a set known only at run time, such as the names of a model's layers.

A tool's parameter names its set by its type: `layer_name: ModuleName`. The model reads nothing of it, and the
tool checks what it is given as ever; constrained replies are narrowed to the set. Its key stands in the JSON
schema of the arguments.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

DOMAIN = "x-domain"
Domain = Literal[
    "modules", "computing_modules", "attention_layers", "layers", "layer_numbers", "heads", "components",
    "component_types", "documents", "importance", "top_k", "measuring_tools", "figures",
]  # fmt: skip
"""Names of the sets. `computing_modules` give an output of their own, `components` can be ablated,
`figures` are what the `measuring_tools` of an experiment give."""


def _one_of(domain: Domain) -> Any:
    return Field(json_schema_extra={DOMAIN: domain})


ModuleName = Annotated[str, _one_of("modules")]
ComputingModule = Annotated[str, _one_of("computing_modules")]
AttentionLayer = Annotated[str, _one_of("attention_layers")]
LayerName = Annotated[str, _one_of("layers")]
LayerNumber = Annotated[int, _one_of("layer_numbers")]
HeadNumber = Annotated[int, _one_of("heads")]
Component = Annotated[str, _one_of("components")]
ComponentType = Annotated[str, _one_of("component_types")]
Importance = Annotated[int, _one_of("importance")]
TopK = Annotated[int, _one_of("top_k")]
DocumentId = Annotated[str, _one_of("documents")]
MeasuringTool = Annotated[str, _one_of("measuring_tools")]
FigureName = Annotated[str, _one_of("figures")]
