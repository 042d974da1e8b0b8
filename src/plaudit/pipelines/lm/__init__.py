"""One job for each language-model algorithm: sft, reward, dpo, grpo and their kin."""
