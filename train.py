from self_supervised_3d_tasks.commands.train import main

if __name__ == "__main__":
    main()
