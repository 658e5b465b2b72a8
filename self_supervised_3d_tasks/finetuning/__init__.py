"""``finetune.py``: few labels → scores, pretrained against from scratch."""
