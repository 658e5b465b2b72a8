"""What happens to a scan between its file and the network, step by step; `preprocessing` puts the steps together."""
