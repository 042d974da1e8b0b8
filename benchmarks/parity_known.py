"""Where we and TRL 1.16 are known to differ, and who is right: shown below the table of parity.

(what, ours, TRL, who is right); a difference that a row of the table measures names it by "row".
"""

KNOWN = [
    (
        "`bco_pair` (row)",
        "the mean of all rewards so far, δ, is taken off both rewards",
        "no δ since February 2026 (a8f5faa57)",
        "ours: equation 10 of the paper (2404.04656) has δ, between the rewards of good and bad "
        "answers",
    ),
    (
        "KTO's z (row)",
        "of the optimiser's whole batch",
        "of each micro-batch, as rows are rotated inside it",
        "ours: with TRL gradient accumulation changes what is learned, and z of few rows is noise",
    ),
    (
        "KTO's mismatched answers",
        "behind the next prompt that is another",
        "behind the next row's prompt, which may be the same one (not measured)",
        "ours: an answer behind its own prompt measures the reward, not z",
    ),
    (
        "CISPO's cap (row)",
        "5 by default",
        "`epsilon_high`, else `epsilon`: 0.2",
        "ours: a cap below 1 multiplies every on-policy gradient by it and weighs nothing; TRL's own "
        "documentation recommends 5",
    ),
    (
        "`ipo` (row)",
        "`ipo`: sums over tokens; `ipo_mean`: averages",
        "averages",
        "both: the paper's equation 17 has sums, its authors agreed to averages for texts",
    ),
    (
        "`label_smoothing` with `sigmoid` (row)",
        "`cdpo`",
        "not read, and nobody is told",
        "ours: a setting without effect should be refused; the same loss comes of `aot` with one pair "
        "a micro-batch (row)",
    ),
    (
        "`sft` beside a DPO loss (row)",
        "over the chosen tokens of the whole batch",
        "mean of each micro-batch's mean",
        "ours: with TRL a token of a micro-batch with short answers counts more",
    ),
    (
        "`bnpo` (row)",
        "`tokens`: those of the optimiser's batch, as `dapo`",
        "the tokens of each micro-batch",
        "ours and TRL's `dapo`: no cut into micro-batches changes them",
    ),
    (
        "`dapo` with several steps a rollout",
        "each step is divided by its own tokens",
        "each by the rollout's tokens over the number of steps (not measured)",
        "either: ours is a mean over the step's tokens, TRL's gives every token of a rollout one weight",
    ),
    (
        "KL in the loss (rows)",
        "sg(ρ) k2",
        "ρ k3 (`use_bias_correction_kl`, the default)",
        "both: the gradients are equal, that of KL(π ‖ π_ref) off policy too; the losses are two "
        "estimates of one KL",
    ),
    (
        "KL in the loss, no correction (row)",
        "sg(ρ) k2",
        "k3 alone",
        "ours: k3's gradient is on average that of the other KL, KL(π_ref ‖ π)",
    ),
    (
        "entropy bonus (row)",
        "tokens count as in the loss",
        "the mean over tokens of the micro-batch, whatever the loss",
        "either where written down; equal for `dapo` in one micro-batch (row), and only ours is "
        "unchanged by a cut",
    ),
    (
        "cut answers masked (row)",
        "they are in no denominator",
        "`grpo`: they are counted among the answers",
        "ours: the more are cut the smaller TRL's step; equal for `dapo` (row)",
    ),
    (
        "several rewards `apart` (row)",
        "the sum is divided by the population's std",
        "by the sample's, plus 1e-4",
        "either: a factor of √(n/(n − 1)) on all advantages, which the source leaves open",
    ),
    (
        "reward model, pad = eos (row)",
        "the score is read at the last token of the answer",
        "at the last that is not the padding token: before the end token where both are one",
        "ours: whether an answer has ended is in its score; TRL takes the end token to pad with "
        "where a tokenizer has no other",
    ),
    (
        "only here",
        "shares and ties of votes, margins; SimPO, AlphaPO, `bco` of labels; GMPO, REINFORCE++",
        "not in its main trainers",
        "",
    ),
    (
        "only there",
        "not here",
        "`aot`, f-divergences, WPO and LD-DPO weights, `apo_zero_unpaired`, DFT, LUSPO, VESPO",
        "",
    ),
]
