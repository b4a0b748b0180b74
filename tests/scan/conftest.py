"""Programs for accelerators that are not there."""

import contextlib
import inspect

import jax
import jax.export
import pytest
from jax.sharding import AbstractDevice, AbstractMesh


@pytest.fixture
def exported():
    """Exports a function of arguments for a platform."""

    def export(platform, function, *arguments):
        # Kernels for GPUs may be exported, but not kept for another version of XLA.
        kernels = ("__gpu$xla.gpu.triton", "mosaic_gpu_v2")
        checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in kernels]
        with contextlib.ExitStack() as stack:
            # Releases from 0.11 on ask what the GPU is.
            if platform == "cuda" and "platform" in inspect.signature(AbstractDevice).parameters:
                gpu = AbstractDevice("NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
                mesh = AbstractMesh((), (), abstract_device=gpu)
                stack.enter_context(jax.sharding.use_abstract_mesh(mesh))
            run = jax.export.export(jax.jit(function), platforms=[platform], disabled_checks=checks)
            return run(*arguments)

    return export
