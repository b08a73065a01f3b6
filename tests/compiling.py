"""How tests compile."""

import functools

import jax

# XLA's CPU compiler in a hurry: LLVM optimises nothing, fused loops are written by the older
# emitter, which JAX 0.11 no longer has, in one module. It takes a third of the time. `./run test`
# compiles everything like this, `--all` as users do.
FUSED = {"xla_cpu_use_fusion_emitters": True} if jax.__version_info__ < (0, 11) else {}
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    **dict.fromkeys(FUSED, False),
    "xla_cpu_parallel_codegen_split_count": 1,
}
USUAL = FUSED | {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_parallel_codegen_split_count": 32,
}
FLAGS = "".join(f" --{flag}={str(value).lower()}" for flag, value in QUICK.items())

# In a hurry always, for programs that run once; and never, where rounding, memory or time is
# measured. Not inside another program.
quick_jit = functools.partial(jax.jit, compiler_options=QUICK)
usual_jit = functools.partial(jax.jit, compiler_options=USUAL)


def compiled(loss):
    """A call that is one program, options and all, where by itself each operation would be one."""
    return lambda *arguments, **options: jax.jit(functools.partial(loss, **options))(*arguments)
