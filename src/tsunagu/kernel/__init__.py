"""Adapters: the only code that makes system calls on namespaces, links, nftables, mounts and runtimes. Decides nothing."""
