from self_supervised_3d_tasks.commands.prepare import main

if __name__ == "__main__":
    main()
