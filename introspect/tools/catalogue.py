"""The names of the tools, and the modules in `introspect.tools` that hold them: known without an import."""

from __future__ import annotations

TOOL_MODULES: dict[str, str] = {
    "get_architecture_summary": "instruments.architecture",
    "get_layer_names": "instruments.architecture",
    "get_weight_statistics": "instruments.weights",
    "process_text": "instruments.activations",
    "get_activation_statistics": "instruments.activations",
    "get_attention_patterns": "instruments.attention",
    "compare_activations": "instruments.activation_comparison",
    "logit_lens": "instruments.lens",
    "ablate": "instruments.ablation",
    "record_observation": "notes",
    "query_memory": "notes",
    "list_heritage_documents": "documents",
    "read_heritage_document": "documents",
    "update_observation": "notes",
    "get_heritage_summary": "documents",
    "get_layer_info": "instruments.architecture",
    "describe_layer": "instruments.components",
    "explain_component": "instruments.components",
    "query_architecture": "instruments.questions",
    "get_weight_summary": "instruments.weights",
    "get_shared_weights": "instruments.weight_sharing",
    "get_shared_layers": "instruments.weight_sharing",
    "compare_weights": "instruments.weight_comparison",
    "predict_result": "predictions",
}
