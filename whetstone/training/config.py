"""Hyper-parameters of a training stage, validated before anything heavy is imported."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainingConfig(BaseModel):
    """What supervised fine-tuning and preference optimisation share. One optimiser step sees
    batch_size x gradient_accumulation rows (per GPU)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    adapter: Literal["lora", "qlora", "none"] = Field(
        "lora",
        description="lora: low-rank adapter; qlora: the same over a 4-bit (nf4) base, needs a CUDA GPU; "
        "none: full fine-tuning, every weight",
    )
    rank: int = Field(32, ge=1, description="rank r of the adapter's matrices")
    alpha: float = Field(64, gt=0, description="the adapter's output is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    target_modules: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="layers that get an adapter: all linear ones but the output head, or names"
    )
    learning_rate: float = Field(
        gt=0, description="peak learning rate of AdamW; an adapter wants about ten times that of full fine-tuning"
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="learning rate after the warm-up: to zero linearly or by cosine, or constant"
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps over which the learning rate rises")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay; not on norms and biases")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    batch_size: int = Field(16, ge=1, description="rows per forward pass and GPU")
    gradient_accumulation: int = Field(1, ge=1, description="forward passes per optimiser step")
    epochs: float | None = Field(None, gt=0, description="passes over the data; null where max_steps decides")
    max_steps: int | None = Field(None, ge=1, description="optimiser steps; null where epochs decides")
    max_length: int = Field(1024, ge=8, description="most tokens of prompt + completion + end of sequence")
    truncate: bool = Field(
        False,
        description="cut completions that are too long (they lose their end of sequence) instead of refusing them",
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, about 20-30 % slower")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="precision of the arithmetic. bfloat16 keeps the weights that are trained in float32 "
        "and stores the frozen base of an adapter in bfloat16 on a GPU",
    )
    seed: int = Field(0, ge=0, description="decides the adapter's initial weights, the order of the rows, dropout")
    checkpoints: int = Field(
        1,
        ge=1,
        description="how many times, evenly spread, to save and to evaluate on dev; "
        "the last step is always one of them",
    )
    select: Literal["dev_accuracy", "dev_loss", "last"] = Field(
        "last", description="which checkpoint is the result: highest dev accuracy, lowest dev loss, or the last"
    )

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError(
                f"exactly one of epochs ({self.epochs}) and max_steps ({self.max_steps}) decides how long to train; "
                "set the other to null"
            )
        return self


class SftConfig(TrainingConfig):
    """Supervised fine-tuning on `records.EXAMPLE`: loss on the completions only, rows weighted by `weight`."""

    first_token_weight: float = Field(
        1.0,
        gt=0,
        description="how many times the first token of a completion counts: the strategy's tag, one token of many, "
        "which otherwise hardly moves the loss; 1 is plain fine-tuning",
    )


class DpoConfig(TrainingConfig):
    """Direct preference optimisation (https://arxiv.org/abs/2305.18290) on `records.PAIR`, plus
    nll_weight x the mean negative log-likelihood of the chosen completions' tokens (https://arxiv.org/abs/2404.19733)."""

    beta: float = Field(0.1, gt=0, description="strength of the pull towards the reference model; tau of ipo")
    loss: Literal["sigmoid", "ipo", "hinge", "robust"] = Field(
        "sigmoid",
        description="sigmoid: DPO; ipo: squared, on log-ratios per token; hinge; robust: with flipped labels",
    )
    scope: Literal["completion", "first_token"] = Field(
        "completion",
        description="what is preferred. first_token: the choice of the strategy alone, whose tag comes first; chosen "
        "solutions are learnt by nll_weight, and what rejected ones share with right ones is not unlearnt",
    )
    length_normalise: bool = Field(False, description="sigmoid on log-ratios per token (ipo always is)")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="share of the labels taken to be flipped; robust only"
    )
    nll_weight: float = Field(
        1.0, ge=0, description="weight of the likelihood of the chosen completions; 0 is plain DPO"
    )
    precompute_reference: bool = Field(
        True, description="the reference's log-probabilities once, before training, rather than at each step"
    )

    @model_validator(mode="after")
    def _nothing_ignored(self) -> DpoConfig:
        if self.label_smoothing and self.loss != "robust":
            raise ValueError(
                f"label_smoothing {self.label_smoothing} has no effect on loss `{self.loss}`; use `robust`"
            )
        if self.length_normalise and self.loss not in ("sigmoid", "ipo"):
            raise ValueError(f"length_normalise exists for loss `sigmoid`, not for `{self.loss}`")
        if self.scope == "first_token" and (self.loss == "ipo" or self.length_normalise):
            raise ValueError("scope `first_token` compares one token with one: nothing to normalise by length")
        if self.dropout:
            raise ValueError(f"dropout {self.dropout}: preferences are trained without dropout; set it to 0")
        return self
