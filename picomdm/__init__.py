"""``picomdm``, the operator's command line: speaks to a deployment's admin API, and to AWS for what is done there.

It is not deployed, and it shares no code with what is: it knows a deployment by its HTTP API and its stack's outputs.
"""
