"""Schedules: in which layers a method acts, and how much stays."""

from topsieve.reduction.schedules.geometric_ramp import GeometricRamp
from topsieve.reduction.schedules.linear_ramp import LinearRamp
from topsieve.reduction.schedules.listed_layers import ListedLayers
from topsieve.reduction.schedules.look_then_choose import LookThenChoose
from topsieve.reduction.schedules.merge_ramp import MergeRamp
from topsieve.reduction.schedules.one_step import OneStep
from topsieve.reduction.schedules.stepwise_ramp import StepwiseRamp
from topsieve.reduction.schedules.threshold_ramp import ThresholdRamp

__all__ = [
    "GeometricRamp",
    "LinearRamp",
    "ListedLayers",
    "LookThenChoose",
    "MergeRamp",
    "OneStep",
    "StepwiseRamp",
    "ThresholdRamp",
]
