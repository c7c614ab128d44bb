"""The precision that a device computes natively."""

import torch


def native_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where `device` has instructions for its matrix products, else float32."""
    fast = cuda_has_bfloat16() if device.type == "cuda" else cpu_has_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def inference_autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU that computes it natively; float32 on a CPU, where codes must be reproducible to the bit."""
    fast = device.type == "cuda" and cuda_has_bfloat16()
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def cuda_has_bfloat16() -> bool:
    """True on NVIDIA GPUs from Ampere on; older ones emulate it."""
    return torch.cuda.is_bf16_supported(including_emulation=False)


def cpu_has_bfloat16() -> bool:
    """True if this CPU multiplies bfloat16 natively and oneDNN may use it.

    oneDNN's own answer is not enough: it also says yes to AVX-512 without avx512_bf16, where a bfloat16 product takes
    four times as long as in float32 (docs/performance.md).
    """
    has = torch.cpu.get_capabilities()
    return (
        any(has.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16"))
        and onednn_takes_bfloat16()
    )


def onednn_takes_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
