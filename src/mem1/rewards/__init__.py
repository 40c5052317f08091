"""TRAJECTORY -> FLOAT, pure."""

from collections.abc import Mapping

from mem1.rewards.answer import (
    AnswerScore,
    ExactMatchReward,
    F1Reward,
    exact_match,
    f1,
    score_answer,
    split_answer,
)
from mem1.rewards.base import Reward, RewardOutput
from mem1.rewards.webshop import WebShopReward

REWARDS: Mapping[str, type[Reward]] = {
    "em": ExactMatchReward,
    "f1": F1Reward,
    "webshop": WebShopReward,
}
"""Names that configs use."""

__all__ = [
    "REWARDS",
    "AnswerScore",
    "ExactMatchReward",
    "F1Reward",
    "Reward",
    "RewardOutput",
    "WebShopReward",
    "exact_match",
    "f1",
    "score_answer",
    "split_answer",
]
