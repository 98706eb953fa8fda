"""What a device computes in by units of its own, and whether there is a compiler for what torch has not."""

from __future__ import annotations

from functools import cache

import torch

_UNITS = {
    "bfloat16": ("avx512_bf16", "amx_bf16", "avx_ne_convert"),
    "float16": ("avx512_fp16", "amx_fp16"),
}
"""What torch calls the units of an x86 processor. oneDNN alone also counts AVX-512 without them."""


def has_units(dtype: str, device: str) -> bool:
    """Whether torch computes in a dtype on a device by units of its own; False on a CPU where nobody says."""
    if dtype not in _UNITS or (device not in ("cpu",) and not device.startswith("cuda")):
        return True
    if device.startswith("cuda"):
        return dtype == "float16" or bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported = "_is_mkldnn_bf16_supported" if dtype == "bfloat16" else "_is_mkldnn_fp16_supported"
    try:
        # It heeds ONEDNN_MAX_CPU_ISA, as the processor cannot.
        if not getattr(torch.ops.mkldnn, supported)():
            return False
    except (AttributeError, RuntimeError):
        return False
    try:
        capabilities = torch.cpu.get_capabilities()
    except AttributeError:  # before torch 2.10
        return dtype == "bfloat16" and bool(torch.cpu._is_avx512_bf16_supported())
    return capabilities.get("architecture") != "x86_64" or any(map(capabilities.get, _UNITS[dtype]))


@cache
def can_compile() -> bool:
    """Whether torch finds a compiler for processors here."""
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        return bool(get_cpp_compiler())
    except Exception:  # whatever torch raises where there is none
        return False
