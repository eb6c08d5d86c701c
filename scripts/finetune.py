"""Fine-tune with AIFS: `accelerate launch scripts/finetune.py --model openai/clip-vit-base-patch16 ...`."""

from aifs_peft.cli.finetune import main

if __name__ == "__main__":
    raise SystemExit(main())
