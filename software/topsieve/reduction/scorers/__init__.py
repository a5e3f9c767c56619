"""Scorers: how much each token or head matters."""

from topsieve.reduction.scorers.anchors_registers import AnchorsRegisters
from topsieve.reduction.scorers.class_attention import ClassAttention
from topsieve.reduction.scorers.class_logits import ClassLogits
from topsieve.reduction.scorers.class_value import ClassValue
from topsieve.reduction.scorers.cross_attention import CrossAttention
from topsieve.reduction.scorers.cumulative_attention import CumulativeAttention
from topsieve.reduction.scorers.delete_gate import DeleteGate
from topsieve.reduction.scorers.equal import Equal
from topsieve.reduction.scorers.halting import Halting
from topsieve.reduction.scorers.head_magnitude import HeadMagnitude
from topsieve.reduction.scorers.information_flow import InformationFlow
from topsieve.reduction.scorers.joint_class_attention import JointClassAttention
from topsieve.reduction.scorers.key_length import KeyLength
from topsieve.reduction.scorers.last_row_attention import LastRowAttention
from topsieve.reduction.scorers.local_global import LocalGlobal
from topsieve.reduction.scorers.mean_attention import MeanAttention
from topsieve.reduction.scorers.mean_query_attention import MeanQueryAttention
from topsieve.reduction.scorers.next_last_query import NextLastQuery
from topsieve.reduction.scorers.plain_gate import FixedGate, RandomGate
from topsieve.reduction.scorers.predictor import Predictor
from topsieve.reduction.scorers.random_score import RandomScore
from topsieve.reduction.scorers.rater_attention import RaterAttention
from topsieve.reduction.scorers.sensitivity import Sensitivity
from topsieve.reduction.scorers.significance import Significance
from topsieve.reduction.scorers.unit_score import UnitScore

__all__ = [
    "UnitScore",
    "DeleteGate",
    "AnchorsRegisters",
    "ClassAttention",
    "ClassLogits",
    "ClassValue",
    "CrossAttention",
    "CumulativeAttention",
    "Equal",
    "FixedGate",
    "Halting",
    "HeadMagnitude",
    "InformationFlow",
    "JointClassAttention",
    "KeyLength",
    "LastRowAttention",
    "LocalGlobal",
    "MeanAttention",
    "MeanQueryAttention",
    "NextLastQuery",
    "Predictor",
    "RandomGate",
    "RandomScore",
    "RaterAttention",
    "Sensitivity",
    "Significance",
]
