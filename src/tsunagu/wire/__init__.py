"""Pure codecs: bytes and text to values and back (DNS, HTTP, stdcopy, nft, OCI, Go templates). No I/O."""
