"""Matrix products and temporary memory of `linear_cross_entropy` for an H100 and a TPU v5e.

    ./run bench products

Value and gradients by features, kernel and bias of 8,192 tokens with 4,096 features and 128,256
classes, compiled without either device. Products are those of a turn of the compiled program's
loop over chunks of tokens, times its turns, over one of features and kernel: three are needed, for
the logits and for each gradient. Temporary memory is over the float32 logits, and beside it less a
float32 kernel's, which sums the slopes of a kernel in bfloat16.
"""

import math

import deviceless  # before JAX
import hlo
import jax
import jax.numpy as jnp

import jaxloss

TOKENS, FEATURES, CLASSES = 8192, 4096, 128256
CHUNK = 1024  # tokens, the default of so many classes
DTYPES = ((jnp.bfloat16, jnp.bfloat16), (jnp.bfloat16, jnp.float32), (jnp.float32, jnp.float32))


def products(program: str) -> float:
    """How many products of features and kernel a program's multiplications are."""
    of_turn = 0.0  # a TPU's program does not say how many there are
    for step in hlo.read(program):
        if step.operation in ("dot", "convolution"):
            left, right = step.operands[:2]
            # Of an (m, k) and a (k, n) matrix, m k n is the root of the three sizes' product.
            of_turn += math.sqrt(left.numbers * right.numbers * step.result[0].numbers)
    return of_turn / (CHUNK * FEATURES * CLASSES)


def loss(x: jax.Array, kernel: jax.Array, ids: jax.Array, bias: jax.Array) -> jax.Array:
    """The mean over the tokens."""
    return jaxloss.linear_cross_entropy(x, kernel, ids, bias=bias, chunk_size=CHUNK)


def main() -> None:
    """Prints a line for each device and pair of dtypes."""
    run = jax.value_and_grad(loss, (0, 1, 3))
    for name, devices in (("H100", deviceless.h100()), ("v5e", deviceless.v5e())):
        if devices is None:
            print(f"{name}: left out, its compiler is not installed")
            continue
        for features, kernel in DTYPES:
            arguments = (
                jax.ShapeDtypeStruct((TOKENS, FEATURES), features),
                jax.ShapeDtypeStruct((FEATURES, CLASSES), kernel),
                jax.ShapeDtypeStruct((TOKENS,), jnp.int32),
                jax.ShapeDtypeStruct((CLASSES,), kernel),
            )
            compiled = deviceless.compiled(run, arguments, devices[0])
            held = compiled.memory_analysis().temp_size_in_bytes
            logits, sums = 4 * TOKENS * CLASSES, 4 * FEATURES * CLASSES
            print(
                f"{name:5}features {jnp.dtype(features).name:9}kernel {jnp.dtype(kernel).name:9}"
                f"products {products(compiled.as_text()):5.2f}  temporaries {held / logits:6.3f}"
                f"  less the sums {(held - sums) / logits:6.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
