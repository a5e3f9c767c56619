"""Bit widths of every number in the machine, and the rounding of every narrowing.

Rounding rules (each is implemented once, in `topsieve_sim.golden.numbers`):

===================  ======================================================================================
narrowing            rule
===================  ======================================================================================
float to integer     round half to even, then saturate symmetrically to +-(2^(bits-1) - 1)
accumulator to score multiply by an unsigned 16-bit factor, shift right with round half up, saturate
exponential          table and linear interpolation, round half up
probability          round half up, saturate to 2^probability_bits - 1
attention output     shift right by probability_bits with round half up, saturate
importance           exact additions, saturating at the accumulator's maximum
===================  ======================================================================================
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Width of the factor that turns an accumulator into a score.
SCORE_MULTIPLIER_BITS = 16

Bits = Annotated[int, Field(ge=1, le=64)]


class NumberFormats(BaseModel):
    """Widths in bits. The defaults are the published machine's 12-bit datapath (SpAtten, section IV-D and IV-G).

    Scores are in units of log2 (the factor log2(e)/sqrt(d) is folded into the score multiplier), so that the
    softmax works with powers of two.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    query_bits: int = Field(12, ge=2, le=16, description="signed symmetric query")
    key_msb_bits: int = Field(8, ge=2, le=16, description="signed MSB plane of a key")
    key_lsb_bits: int = Field(4, ge=0, le=8, description="unsigned LSB plane of a key; 0 = no progressive plane")
    value_bits: int = Field(12, ge=2, le=16, description="signed symmetric value")
    score_bits: int = Field(16, ge=6, le=24, description="signed fixed-point score, log2 units")
    score_fraction_bits: int = Field(8, ge=1, le=16, description="fraction bits of a score")
    exponential_bits: int = Field(16, ge=6, le=24, description="unsigned exponential; 1.0 is 2^(bits-1)")
    exponential_table_bits: int = Field(5, ge=1, le=10, description="log2 of the segments of the exp2 table")
    reciprocal_bits: int = Field(16, ge=6, le=24, description="mantissa bits of the reciprocal of the row sum")
    reciprocal_table_bits: int = Field(6, ge=1, le=10, description="log2 of the segments of the reciprocal table")
    probability_bits: int = Field(12, ge=4, le=16, description="unsigned fraction; 1.0 saturates to 2^bits - 1")
    output_bits: int = Field(16, ge=4, le=24, description="signed attention output, in units of the value's step")
    token_importance_bits: int = Field(32, ge=8, le=48, description="unsigned saturating column sum")
    head_importance_bits: int = Field(40, ge=8, le=56, description="unsigned saturating absolute sum")

    @model_validator(mode="after")
    def _consistent(self) -> NumberFormats:
        if self.score_fraction_bits >= self.score_bits - 1:
            raise ValueError(
                f"score_fraction_bits must be at most score_bits - 2 = {self.score_bits - 2}, "
                f"got {self.score_fraction_bits}"
            )
        if self.exponential_table_bits > self.score_fraction_bits:
            raise ValueError(
                f"exponential_table_bits must be at most score_fraction_bits = {self.score_fraction_bits}, "
                f"got {self.exponential_table_bits}"
            )
        if self.reciprocal_table_bits >= self.reciprocal_bits:
            raise ValueError(
                f"reciprocal_table_bits must be below reciprocal_bits = {self.reciprocal_bits}, "
                f"got {self.reciprocal_table_bits}"
            )
        if self.probability_bits > self.exponential_bits + self.reciprocal_bits - 3:
            raise ValueError(
                f"probability_bits must be at most exponential_bits + reciprocal_bits - 3 = "
                f"{self.exponential_bits + self.reciprocal_bits - 3}, got {self.probability_bits}"
            )
        return self

    @property
    def key_bits(self) -> int:
        """Bits of a whole key, both planes."""
        return self.key_msb_bits + self.key_lsb_bits

    def dot_product_bits(self, head_dim: int) -> int:
        """Signed bits that hold every sum of `head_dim` query-key products exactly."""
        return self.query_bits + self.key_bits + max(head_dim - 1, 0).bit_length()

    def row_sum_bits(self, capacity: int) -> int:
        """Unsigned bits that hold the sum of `capacity` exponentials exactly."""
        return self.exponential_bits + max(capacity - 1, 0).bit_length()

    def output_accumulator_bits(self, capacity: int) -> int:
        """Signed bits that hold the sum of `capacity` probability-value products exactly."""
        return self.probability_bits + self.value_bits + max(capacity - 1, 0).bit_length()
