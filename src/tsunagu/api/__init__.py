"""The Docker Engine HTTP API: parse the request, call a service, render Docker's JSON. Never touches the kernel."""
