"""Hyper-parameters of a training stage, validated before anything heavy is imported."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainingConfig(BaseModel):
    """What supervised fine-tuning and preference optimisation share. One optimiser step sees
    batch_size x gradient_accumulation x devices rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    adapter: Literal["lora", "qlora", "none"] = Field(
        "lora",
        description="lora: low-rank adapter; qlora: the same over a quantised base, needs a CUDA GPU; "
        "none: full fine-tuning, every weight",
    )
    quantisation: Literal["nf4", "int8"] = Field(
        "nf4", description="of qlora's base: nf4 takes 4 bits a weight, int8 takes 8 and rounds less"
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
    batch_size: int = Field(16, ge=1, description="rows per forward pass and device")
    gradient_accumulation: int = Field(1, ge=1, description="forward passes per optimiser step")
    epochs: float | None = Field(None, gt=0, description="passes over the data; null where max_steps decides")
    max_steps: int | None = Field(None, ge=1, description="optimiser steps; null where epochs decides")
    max_length: int = Field(1024, ge=8, description="most tokens of prompt + completion + end of sequence")
    truncate: bool = Field(
        False,
        description="cut completions that are too long (they lose their end of sequence) instead of refusing them",
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, about 20-30 % slower")
    devices: int = Field(1, ge=1, description="GPUs that train side by side, each with rows of its own")
    sharded: bool = Field(
        False, description="divide weights and optimizer among the devices (FSDP), where one can't hold them"
    )
    template: Literal["plain", "chat"] = Field(
        "plain",
        description="how a prompt becomes tokens. plain: as it is; chat: as a user's message in the tokenizer's chat "
        "template, its last line as the beginning of the answer. Sampling from the result does the same",
    )
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
        "last",
        description="which checkpoint is the result: highest accuracy on the dev problems, lowest loss on rows "
        "that are held out, or the last",
    )
    held_out: float = Field(
        0.05, gt=0, lt=1, description="share of the problems whose rows dev_loss holds out of training"
    )

    @property
    def rows_per_step(self) -> int:
        return self.batch_size * self.gradient_accumulation * self.devices

    @model_validator(mode="after")
    def _devices(self) -> TrainingConfig:
        if self.sharded and self.devices == 1:
            raise ValueError("sharded divides a model among devices, and devices is 1; set it to the number of GPUs")
        if self.sharded and self.select == "dev_accuracy":
            raise ValueError("select `dev_accuracy` samples, which a sharded model can't; use `dev_loss` or `last`")
        if self.sharded and self.adapter == "qlora":
            raise ValueError("a quantised base can't be sharded; use adapter `lora` or sharded: false")
        return self

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
    reference: Literal["start", "base"] = Field(
        "start",
        description="what the preference is measured against. start: the model that training starts from, so the "
        "epoch before; base: the base model in every epoch",
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
        if self.reference == "base" and not self.precompute_reference:
            raise ValueError("reference `base` is a second model; it is read once: set precompute_reference to true")
        if self.sharded and self.precompute_reference:
            raise ValueError("a sharded model reads its reference at each step; set precompute_reference to false")
        if self.sharded and self.adapter == "none":
            raise ValueError("sharded preferences need adapter `lora`: its base is the reference")
        if self.dropout:
            raise ValueError(f"dropout {self.dropout}: preferences are trained without dropout; set it to 0")
        return self
