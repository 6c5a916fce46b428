"""Adapters: the only system calls on namespaces, links, nftables, mounts and runtimes. Decides nothing."""
