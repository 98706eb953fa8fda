"""The names of the tools and the modules that hold them: known without importing any."""

from __future__ import annotations

TOOL_MODULES: dict[str, str] = {
    "get_architecture_summary": "architecture",
    "get_layer_names": "architecture",
    "get_weight_statistics": "weights",
    "process_text": "activations",
    "get_activation_statistics": "activations",
    "get_attention_patterns": "attention",
    "compare_activations": "activation_comparison",
    "logit_lens": "lens",
    "ablate": "ablation",
    "record_observation": "notes",
    "query_memory": "notes",
    "list_heritage_documents": "documents",
    "read_heritage_document": "documents",
    "update_observation": "notes",
    "get_heritage_summary": "documents",
    "get_layer_info": "architecture",
    "describe_layer": "components",
    "explain_component": "components",
    "query_architecture": "questions",
    "get_weight_summary": "weights",
    "get_shared_weights": "weight_sharing",
    "get_shared_layers": "weight_sharing",
    "compare_weights": "weight_comparison",
}
