"""How tests compile."""

import functools

import jax

# LLVM optimises nothing, which takes half the time: for programs that run once. Not where rounding
# or memory is measured.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
