"""Matrix products and memory of linear_cross_entropy on an NVIDIA H100 and a TPU v5e, without them.

Compiles value and gradients (features, kernel, bias) and prints how many products a chunk takes,
tokens in a chunk, and temporary memory over the float32 logits. A bfloat16 kernel's gradient is
summed in float32: 0.5 of the logits here. On a TPU the compiler keeps a float32 kernel as bfloat16
too, as which it multiplies: 0.25; no barrier in the loop keeps it from that.
"""

import re

import deviceless
import hlo
import jax
import jax.numpy as jnp

import jaxloss

TOKENS, FEATURES, CLASSES = 8192, 4096, 128256


def main() -> None:
    """Prints a line for each device and dtype."""
    loss = jax.value_and_grad(
        lambda x, w, b, y: jaxloss.linear_cross_entropy(x, w, y, bias=b), (0, 1, 2)
    )
    for device, found in (("h100", deviceless.h100()), ("v5e", deviceless.v5e())):
        for dtype in (jnp.float32, jnp.bfloat16) if found else ():
            shapes = ((TOKENS, FEATURES), (FEATURES, CLASSES), (CLASSES,))
            floats = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
            ids = jax.ShapeDtypeStruct((TOKENS,), jnp.int32)
            done = deviceless.compiled(loss, (*floats, ids), found[0])
            steps = [s for s in hlo.read(done.as_text()) if s.operation in ("dot", "convolution")]
            rows = {int(n) for s in steps for n in re.findall(rf"\[(\d+),{CLASSES}\]", s.line)}
            memory = done.memory_analysis().temp_size_in_bytes / (4 * TOKENS * CLASSES)
            chunk = min(rows)
            print(
                f"{device} {dtype.__name__:8}  {len(steps)} products, chunks of {chunk}, "
                f"temporary {memory:.3f} of the logits"
            )


if __name__ == "__main__":
    main()
