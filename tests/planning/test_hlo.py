"""What the reader of compiled programs counts: products, loops, the compiler's own estimates."""

import jax
import jax.numpy as jnp
from hlo_programs import program
from jax import lax

from spct_jax.planning import hlo


def test_a_scan_counts_as_often_as_it_runs():
    def f(x, w):
        return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

    compiled = jax.jit(f).lower(jnp.zeros((16, 32)), jnp.zeros((7, 32, 32))).compile()
    assert hlo.Module(compiled.as_text()).cost().flops == 7 * 2 * 16 * 32 * 32


def test_a_loop_that_ends_on_data_counts_as_often_as_is_said_and_the_rest_is_spread_over_its_steps():
    def f(x, w):
        return lax.while_loop(lambda s: (s[0] < 5) & (s[1].sum() < 9), lambda s: (s[0] + 1, s[1] @ w), (0, x @ w))[1]

    compiled = jax.jit(f).lower(jnp.zeros((16, 32)), jnp.zeros((32, 32))).compile()
    once = 2 * 16 * 32 * 32
    assert hlo.Module(compiled.as_text()).cost().flops == 2 * once
    assert hlo.Module(compiled.as_text()).cost(steps=4).flops == once * 5 / 4


def test_a_batch_of_products_written_as_a_convolution_counts_real_inputs_only():
    module = program("""
        ENTRY %main (a: bf16[4,32,128], b: bf16[4,256,128]) -> f32[4,32,256] {
          %a = bf16[4,32,128]{2,1,0} parameter(0)
          %b = bf16[4,256,128]{2,1,0} parameter(1)
          ROOT %c = f32[4,32,256]{2,1,0} convolution(%a, %b), window={size=4 stride=3 lhs_dilate=4}, dim_labels=0bf_0oi->0bf
        }
        """)
    assert module.cost().flops == 2 * 4 * 32 * 256 * 128


def test_window_fields_go_by_the_number_of_the_axis_not_by_its_place_in_the_kernel():
    module = program("""
        ENTRY %main (a: bf16[4,1024,2304,1], b: bf16[4,256,2304,1]) -> f32[4,1024,4,256] {
          %a = bf16[4,1024,2304,1]{2,1,0,3} parameter(0)
          %b = bf16[4,256,2304,1]{2,1,0,3} parameter(1)
          ROOT %c = f32[4,1024,4,256]{3,2,1,0} convolution(%a, %b), window={size=1x4 pad=0_0x3_3 rhs_reversal=0x1}, dim_labels=0bf1_1oi0->0b1f
        }
        """)  # noqa: E501
    assert module.cost().flops == 2 * 4 * 1024 * 2304 * 4 * 256


UNROLLED = """
    %body (s: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {
      %s = (s32[], f32[8,8]{1,0}) parameter(0)
      %i = s32[]{:T(128)} get-tuple-element(%s), index=0
      %x = f32[8,8]{1,0} get-tuple-element(%s), index=1
      %one = s32[]{:T(128)} constant(1)
      %j = s32[]{:T(128)} add(%i, %one)
      %k = s32[]{:T(128)} add(%j, %one)
      %y = f32[8,8]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
      %z = f32[8,8]{1,0} dot(%y, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
      ROOT %out = (s32[], f32[8,8]{1,0}) tuple(%k, %z)
    }

    %condition (s: (s32[], f32[8,8])) -> pred[] {
      %s = (s32[], f32[8,8]{1,0}) parameter(0)
      %i = s32[] get-tuple-element(%s), index=0
      %limit = s32[] constant(8)
      ROOT %more = pred[] compare(%i, %limit), direction=LT
    }

    ENTRY %main (x: f32[8,8]) -> f32[8,8] {
      %x = f32[8,8]{1,0} parameter(0)
      %zero = s32[] constant(0)
      %start = (s32[], f32[8,8]{1,0}) tuple(%zero, %x)
      %end = (s32[], f32[8,8]{1,0}) while(%start), condition=%condition, body=%body
      ROOT %out = f32[8,8]{1,0} get-tuple-element(%end), index=1
    }
    """


KERNEL = """
    ENTRY %main (x: f32[8,8]) -> f32[8,8] {
      %x = f32[8,8]{1,0} parameter(0)
      %k = f32[8,8]{1,0} custom-call(%x), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
    "sizes":"8"
    }}, metadata={op_name="kernel"}
      ROOT %y = f32[8,8]{1,0} dot(%k, %k), lhs_contracting_dims={1}, rhs_contracting_dims={0}
    }
    """


def test_a_kernels_attributes_may_take_lines_of_their_own():
    cost = program(KERNEL).cost()
    assert cost.flops == 2 * 8**3 and cost.bytes == 5 * 256


def test_an_unrolled_loop_runs_fewer_times():
    assert program(UNROLLED).cost().flops == 4 * 2 * 2 * 8**3


ESTIMATED = """
    %product (p: bf16[64,64], x: f32[8,64]) -> f32[8,64] {
      %p = bf16[64,64]{1,0:T(8,128)(2,1)S(1)} parameter(0)
      %x = f32[8,64]{1,0:T(8,128)} parameter(1)
      %w = f32[64,64]{1,0:T(8,128)} fusion(%p), kind=kLoop, calls=%widened, backend_config={"window_config":{"estimated_cycles":"77"}}
      ROOT %y = f32[8,64]{1,0:T(8,128)} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
    }

    %widened (p: bf16[64,64]) -> f32[64,64] {
      %p = bf16[64,64]{1,0:T(8,128)(2,1)} parameter(0)
      ROOT %w = f32[64,64]{1,0:T(8,128)} convert(%p)
    }

    %body (s: (s32[], f32[8,64], bf16[64,64])) -> (s32[], f32[8,64], bf16[64,64]) {
      %s = (s32[], f32[8,64]{1,0:T(8,128)}, bf16[64,64]{1,0:T(8,128)(2,1)}) parameter(0)
      %i = s32[]{:T(128)} get-tuple-element(%s), index=0
      %x = f32[8,64]{1,0:T(8,128)} get-tuple-element(%s), index=1
      %p = bf16[64,64]{1,0:T(8,128)(2,1)} get-tuple-element(%s), index=2
      %one = s32[]{:T(128)} constant(1)
      %j = s32[]{:T(128)} add(%i, %one), backend_config={"flag_configs":[],"window_config":{"estimated_cycles":"5"}}
      %start = (bf16[64,64]{1,0:T(8,128)(2,1)S(1)}, bf16[64,64]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%p)
      %near = bf16[64,64]{1,0:T(8,128)(2,1)S(1)} copy-done(%start)
      %y = f32[8,64]{1,0:T(8,128)} fusion(%near, %x), kind=kOutput, calls=%product, metadata={op_name="jit(step)/while/body/closed_call/checkpoint/Block/mlp/dot_general" stack_frame_id=8}, backend_config={"flag_configs":[],"window_config":{"estimated_cycles":"200"}}
      ROOT %out = (s32[], f32[8,64]{1,0:T(8,128)}, bf16[64,64]{1,0:T(8,128)(2,1)}) tuple(%j, %y, %p)
    }

    %condition (s: (s32[], f32[8,64], bf16[64,64])) -> pred[] {
      %s = (s32[], f32[8,64]{1,0:T(8,128)}, bf16[64,64]{1,0:T(8,128)(2,1)}) parameter(0)
      %i = s32[] get-tuple-element(%s), index=0
      %limit = s32[] constant(6)
      ROOT %more = pred[] compare(%i, %limit), direction=LT
    }

    ENTRY %main (x: f32[8,64], p: bf16[64,64]) -> f32[8,64] {
      %x = f32[8,64]{1,0:T(8,128)} parameter(0)
      %p = bf16[64,64]{1,0:T(8,128)(2,1)} parameter(1)
      %zero = s32[] constant(0)
      %c = f32[8,64]{1,0:T(8,128)} copy(%x), metadata={op_name="jit(step)/Block/mlp/dot_general"}, backend_config={"window_config":{"estimated_cycles":"30"}}
      %s = (s32[], f32[8,64]{1,0:T(8,128)}, bf16[64,64]{1,0:T(8,128)(2,1)}) tuple(%zero, %c, %p)
      %end = (s32[], f32[8,64]{1,0:T(8,128)}, bf16[64,64]{1,0:T(8,128)(2,1)}) while(%s), condition=%condition, body=%body
      %h = f32[258]{0:T(512)} fusion(%x), kind=kCustom, calls=%widened, metadata={op_name="jit(step)/scatter-add"}, backend_config={"window_config":{"estimated_cycles":"9223372036854775807","cost_model_type":"COST_MODEL_TYPE_INVALID"}}
      ROOT %out = f32[8,64]{1,0:T(8,128)} get-tuple-element(%end), index=1
    }
    """  # noqa: E501


def test_the_compilers_estimates_count_as_often_as_their_kernels_run_and_not_within_fusions():
    """Written as the compiler for TPUs does, which says nothing of asynchronous copies: they are counted in bytes."""
    cost = program(ESTIMATED).cost()
    known = {"Block/mlp/dot_general": (6, 6 * 200), "add": (6, 6 * 5), "copy Block/mlp/dot_general": (1, 30)}
    assert cost.kernels == known | {"scatter-add": (1, 0)} and cost.unknown == 1
    assert cost.cycles == 6 * 205 + 30 and cost.copied == 6 * 2 * 64 * 64
