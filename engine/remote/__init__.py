"""How a process that holds sessions talks with the one that runs their models; both sides use it.

Place in the flow: ``lipsync.remote``, ``restore.remote`` -> Link -> Unix socket and shared memory -> ``model_host``.
"""
