"""Launches without what Triton does again at each: binding the arguments, looking into every one."""

from typing import Any

import torch
import triton

_compiled: dict[tuple[Any, ...], Any] = {}
INTERPRETED = bool(triton.knobs.runtime.interpret)


def launch(
    kernel: Any, programs: int, device: torch.device, warps: int, stages: int, **arguments: Any
) -> Any:
    """Run a kernel by so many programs, and return what Triton compiled for such arguments."""
    if INTERPRETED:
        return kernel[programs,](**arguments)
    key: list[Any] = [kernel, device, warps, stages]
    constants, values = kernel.constexprs, []
    for position, name in enumerate(kernel.arg_names):
        value = arguments[name]
        if position in constants:
            key.append(value)
        else:
            value = _looked_at(value, key)
        values.append(value)
    found = tuple(key)
    compiled = _compiled.get(found)
    hook = triton.knobs.runtime.launch_enter_hook  # a profiler's; in later releases a chain of them
    if compiled is None or getattr(hook, "calls", hook):
        compiled = kernel[programs,](**arguments, num_warps=warps, num_stages=stages)
        if not torch.version.hip:  # there code may depend on sizes of tensors, too
            _compiled[found] = compiled
    else:
        stream = triton.runtime.driver.active.get_current_stream(device.index)
        function, metadata = compiled.function, compiled.packed_metadata
        compiled.run(programs, 1, 1, stream, function, metadata, None, None, None, *values)
    return compiled


def _looked_at(value: Any, key: list[Any]) -> Any:
    """The address of a tensor, anything else itself, also inside a tuple; to the key what code depends on.

    That is the dtype and whether 16 divides the address; whether an integer is 1, divisible by 16, long.
    """
    if type(value) is int:
        key.append(1 if value == 1 else (value % 16 == 0, -(2**31) <= value < 2**31))
        return value
    if isinstance(value, tuple):
        return tuple([_looked_at(part, key) for part in value])
    address: int = value.data_ptr()
    key.append((value.dtype, address % 16 == 0))
    return address
