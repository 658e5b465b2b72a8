from self_supervised_3d_tasks.__main__ import script

if __name__ == "__main__":
    script("finetune")
